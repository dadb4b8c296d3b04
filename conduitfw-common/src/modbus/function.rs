//! Function codes: MODBUS Application Protocol Specification V1.1b3 §5.1, §6.

use crate::verdict::Reason;

/// A function code: any byte. A firewall exists for the unknown ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionCode(pub u8);

/// MEI type of `CANopen` general reference (§6.20).
pub const MEI_CANOPEN: u16 = 13;
/// MEI type of read device identification (§6.21).
pub const MEI_READ_DEVICE_IDENTIFICATION: u16 = 14;

/// The sub-functions of function 8 by number and name (§6.8.1).
pub const SUB_FUNCTIONS: &[(u16, &str)] = &[
    (0, "return-query-data"),
    (1, "restart-communications-option"),
    (2, "return-diagnostic-register"),
    (3, "change-ascii-input-delimiter"),
    (4, "force-listen-only-mode"),
    (10, "clear-counters-and-diagnostic-register"),
    (11, "return-bus-message-count"),
    (12, "return-bus-communication-error-count"),
    (13, "return-bus-exception-error-count"),
    (14, "return-server-message-count"),
    (15, "return-server-no-response-count"),
    (16, "return-server-nak-count"),
    (17, "return-server-busy-count"),
    (18, "return-bus-character-overrun-count"),
    (20, "clear-overrun-counter-and-flag"),
];

/// The MEI types of function 43 by number and name.
pub const MEI_TYPES: &[(u16, &str)] = &[
    (MEI_CANOPEN, "canopen"),
    (MEI_READ_DEVICE_IDENTIFICATION, "read-device-identification"),
];

/// How long the request of a function must be, as the MBAP length field counts: unit id, function
/// code and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Always the same.
    Fixed {
        /// The length.
        length: u8,
    },
    /// A byte of the request counts the bytes behind it.
    Counted {
        /// Where the byte stands, from the start of the ADU.
        count_at: u8,
        /// The length when it is 0.
        before_count: u8,
    },
    /// Function 8: a sub-function and at least two bytes, in pairs.
    Diagnostics,
    /// Function 43: an MEI type and what it defines.
    Encapsulated,
    /// Not known: the MBAP length is trusted within its limits.
    Any,
}

impl FunctionCode {
    /// Read coils.
    pub const READ_COILS: Self = Self(1);
    /// Read discrete inputs.
    pub const READ_DISCRETE_INPUTS: Self = Self(2);
    /// Read holding registers.
    pub const READ_HOLDING_REGISTERS: Self = Self(3);
    /// Read input registers.
    pub const READ_INPUT_REGISTERS: Self = Self(4);
    /// Write single coil.
    pub const WRITE_SINGLE_COIL: Self = Self(5);
    /// Write single register.
    pub const WRITE_SINGLE_REGISTER: Self = Self(6);
    /// Read exception status.
    pub const READ_EXCEPTION_STATUS: Self = Self(7);
    /// Diagnostics.
    pub const DIAGNOSTICS: Self = Self(8);
    /// Get comm event counter.
    pub const GET_COMM_EVENT_COUNTER: Self = Self(11);
    /// Get comm event log.
    pub const GET_COMM_EVENT_LOG: Self = Self(12);
    /// Write multiple coils.
    pub const WRITE_MULTIPLE_COILS: Self = Self(15);
    /// Write multiple registers.
    pub const WRITE_MULTIPLE_REGISTERS: Self = Self(16);
    /// Report server id.
    pub const REPORT_SERVER_ID: Self = Self(17);
    /// Read file record.
    pub const READ_FILE_RECORD: Self = Self(20);
    /// Write file record.
    pub const WRITE_FILE_RECORD: Self = Self(21);
    /// Mask write register.
    pub const MASK_WRITE_REGISTER: Self = Self(22);
    /// Read/write multiple registers.
    pub const READ_WRITE_MULTIPLE_REGISTERS: Self = Self(23);
    /// Read FIFO queue.
    pub const READ_FIFO_QUEUE: Self = Self(24);
    /// Encapsulated interface transport.
    pub const ENCAPSULATED_INTERFACE_TRANSPORT: Self = Self(43);

    /// Every code that the specification names, with its name in policies and events.
    pub const NAMED: &[(Self, &str)] = &[
        (Self::READ_COILS, "read-coils"),
        (Self::READ_DISCRETE_INPUTS, "read-discrete-inputs"),
        (Self::READ_HOLDING_REGISTERS, "read-holding-registers"),
        (Self::READ_INPUT_REGISTERS, "read-input-registers"),
        (Self::WRITE_SINGLE_COIL, "write-single-coil"),
        (Self::WRITE_SINGLE_REGISTER, "write-single-register"),
        (Self::READ_EXCEPTION_STATUS, "read-exception-status"),
        (Self::DIAGNOSTICS, "diagnostics"),
        (Self::GET_COMM_EVENT_COUNTER, "get-comm-event-counter"),
        (Self::GET_COMM_EVENT_LOG, "get-comm-event-log"),
        (Self::WRITE_MULTIPLE_COILS, "write-multiple-coils"),
        (Self::WRITE_MULTIPLE_REGISTERS, "write-multiple-registers"),
        (Self::REPORT_SERVER_ID, "report-server-id"),
        (Self::READ_FILE_RECORD, "read-file-record"),
        (Self::WRITE_FILE_RECORD, "write-file-record"),
        (Self::MASK_WRITE_REGISTER, "mask-write-register"),
        (
            Self::READ_WRITE_MULTIPLE_REGISTERS,
            "read-write-multiple-registers",
        ),
        (Self::READ_FIFO_QUEUE, "read-fifo-queue"),
        (
            Self::ENCAPSULATED_INTERFACE_TRANSPORT,
            "encapsulated-interface-transport",
        ),
    ];
    /// The group "reads": functions that only read process data.
    pub const READS: &[Self] = &[
        Self::READ_COILS,
        Self::READ_DISCRETE_INPUTS,
        Self::READ_HOLDING_REGISTERS,
        Self::READ_INPUT_REGISTERS,
        Self::READ_FILE_RECORD,
        Self::READ_FIFO_QUEUE,
    ];
    /// The group "writes": functions that write process data.
    pub const WRITES: &[Self] = &[
        Self::WRITE_SINGLE_COIL,
        Self::WRITE_SINGLE_REGISTER,
        Self::WRITE_MULTIPLE_COILS,
        Self::WRITE_MULTIPLE_REGISTERS,
        Self::WRITE_FILE_RECORD,
        Self::MASK_WRITE_REGISTER,
        Self::READ_WRITE_MULTIPLE_REGISTERS,
    ];

    /// Its name, if the specification gives it one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMED
            .iter()
            .find(|(code, _)| *code == self)
            .map(|(_, name)| *name)
    }

    /// How long its request must be.
    #[inline(always)]
    #[must_use]
    pub const fn request_body(self) -> Body {
        match self.0 {
            1..=6 => Body::Fixed { length: 6 },
            7 | 11 | 12 | 17 => Body::Fixed { length: 2 },
            8 => Body::Diagnostics,
            15 | 16 => Body::Counted {
                count_at: 12,
                before_count: 7,
            },
            20 | 21 => Body::Counted {
                count_at: 8,
                before_count: 3,
            },
            22 => Body::Fixed { length: 8 },
            23 => Body::Counted {
                count_at: 16,
                before_count: 11,
            },
            24 => Body::Fixed { length: 4 },
            43 => Body::Encapsulated,
            _ => Body::Any,
        }
    }

    /// Whether its request begins with a register's or coil's address and a quantity or value.
    #[inline(always)]
    #[must_use]
    pub const fn has_address(self) -> bool {
        matches!(self.0, 1..=6 | 15 | 16 | 22 | 23)
    }

    /// Whether a quantity follows the address.
    #[inline(always)]
    #[must_use]
    pub const fn has_quantity(self) -> bool {
        matches!(self.0, 1..=4 | 15 | 16 | 23)
    }

    /// Whether it writes registers or coils.
    #[inline(always)]
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self.0, 5 | 6 | 15 | 16 | 22 | 23)
    }

    /// Whether its addresses are coils.
    #[inline(always)]
    #[must_use]
    pub const fn has_coils(self) -> bool {
        matches!(self.0, 1 | 5 | 15)
    }

    /// Whether it is about records of files.
    #[inline(always)]
    #[must_use]
    pub const fn has_files(self) -> bool {
        matches!(self.0, 20 | 21)
    }

    /// Why an operand that no rule allows is denied.
    #[inline(always)]
    #[must_use]
    pub const fn operand_reason(self) -> Reason {
        match self {
            Self::DIAGNOSTICS => Reason::SubFunctionNotAllowed,
            Self::ENCAPSULATED_INTERFACE_TRANSPORT => Reason::MeiTypeNotAllowed,
            _ => Reason::RegisterNotAllowed,
        }
    }
}
