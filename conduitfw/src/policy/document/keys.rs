//! Every key of a policy, by table.

/// The keys of one table.
#[derive(Debug)]
pub struct Table {
    /// The table as it is written, e.g. `[zones.NAME]`.
    pub header: &'static str,
    /// Its keys; empty for a table whose keys are names.
    pub keys: &'static [&'static str],
    /// Keys that a later version will have.
    pub later: &'static [&'static str],
}

/// The top of the file.
pub const POLICY: Table = Table {
    header: "the policy",
    keys: &[
        "site", "settings", "gateway", "bridges", "zones", "assets", "conduits",
    ],
    later: &[],
};
/// `[site]`
pub const SITE: Table = Table {
    header: "[site]",
    keys: &["name", "description"],
    later: &[],
};
/// `[settings]`
pub const SETTINGS: Table = Table {
    header: "[settings]",
    keys: &["mode", "forwarding", "adopt", "timeouts", "limits"],
    later: &["ethertypes"],
};
/// `[settings.timeouts]`
pub const TIMEOUTS: Table = Table {
    header: "[settings.timeouts]",
    keys: &[
        "tcp_established",
        "tcp_opening",
        "tcp_closing",
        "datagram",
        "datagram_opening",
        "modbus_reply",
    ],
    later: &[],
};
/// `[settings.limits]`
pub const LIMITS: Table = Table {
    header: "[settings.limits]",
    keys: &["flows", "opening_flows", "inspected_flows"],
    later: &[],
};
/// `[gateway]`
pub const GATEWAY: Table = Table {
    header: "[gateway]",
    keys: &["addresses"],
    later: &[],
};
/// `[[bridges]]`
pub const BRIDGE: Table = Table {
    header: "[[bridges]]",
    keys: &["name", "ports", "stp", "lldp"],
    later: &[],
};
/// `[zones.NAME]`
pub const ZONE: Table = Table {
    header: "[zones.NAME]",
    keys: &[
        "interfaces",
        "networks",
        "vlans",
        "security_level",
        "description",
        "nested",
    ],
    later: &["ethertypes"],
};
/// `[assets.NAME]`
pub const ASSET: Table = Table {
    header: "[assets.NAME]",
    keys: &["zone", "address", "addresses", "description"],
    later: &[],
};
/// `[[conduits]]`
pub const CONDUIT: Table = Table {
    header: "[[conduits]]",
    keys: &[
        "name",
        "from",
        "to",
        "rationale",
        "owner",
        "agreement",
        "mode",
        "on_deny",
        "new_flows",
        "tcp",
        "udp",
        "icmp_echo",
        "modbus",
    ],
    later: &[],
};
/// `[[conduits.modbus]]`
pub const MODBUS: Table = Table {
    header: "[[conduits.modbus]]",
    keys: &[
        "name",
        "port",
        "ports",
        "units",
        "functions",
        "sub_functions",
        "mei_types",
        "coils",
        "discrete_inputs",
        "input_registers",
        "holding_registers",
        "registers",
        "files",
        "records",
        "values",
        "bits",
        "type",
        "signed",
        "word_order",
        "max_step",
        "max_rate",
        "max_length",
        "max_outstanding",
    ],
    later: &[],
};

/// Every table.
pub const ALL: &[Table] = &[
    POLICY, SITE, SETTINGS, TIMEOUTS, LIMITS, GATEWAY, BRIDGE, ZONE, ASSET, CONDUIT, MODBUS,
];
