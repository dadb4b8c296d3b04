//! The end of the street: what happens to a frame, and why.

/// What happens to a frame.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// The frame goes on to the gateway's forwarding.
    Pass = 0,
    /// The frame is discarded without a sign to anybody.
    Drop = 1,
    /// The segment is turned into a TCP reset (RFC 9293 §3.10.7.4).
    Reset = 2,
    /// The Modbus request is turned into one that the responder refuses with an exception.
    Exception = 3,
}

impl Verdict {
    /// The word for it in events, on the command line and in the documentation.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Reset => "reset",
            Self::Exception => "exception",
        }
    }

    /// Its number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Drop => 1,
            Self::Reset => 2,
            Self::Exception => 3,
        }
    }

    /// The verdict with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Pass),
            1 => Some(Self::Drop),
            2 => Some(Self::Reset),
            3 => Some(Self::Exception),
            _ => None,
        }
    }
}

macro_rules! reasons {
    ($($number:literal $name:ident $label:literal $meaning:literal)*) => {
        /// Why a frame was denied. A number, once released, keeps its meaning; the same label
        /// stands in events, counters, on the command line and in the documentation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $meaning] $name = $number,)*
        }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The stable label, for machines.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// One sentence for people, without a full stop.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }

            /// Its number.
            #[inline(always)]
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Self::$name => $number,)* }
            }

            /// The reason with this number, if there is one.
            #[inline(always)]
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    // parse
    1 TruncatedFrame "truncated-frame" "the frame ends before a header that it announces"
    2 TooManyVlanTags "too-many-vlan-tags" "more than two VLAN tags"
    3 EtherTypeNotAllowed "ethertype-not-allowed" "a protocol above Ethernet that the policy does not list"
    4 BadIpv4Header "bad-ipv4-header" "an IPv4 header whose version or lengths contradict the frame"
    5 BadIpv6Header "bad-ipv6-header" "an IPv6 header whose version or lengths contradict the frame"
    6 Ipv6ExtensionNotAllowed "ipv6-extension-not-allowed" "an IPv6 extension header that is not understood, or too many of them"
    7 Fragment "fragment" "an IP fragment: what it carries cannot be judged"
    8 BadTcpHeader "bad-tcp-header" "a TCP header whose length contradicts the packet"
    9 BadUdpHeader "bad-udp-header" "a UDP header whose length contradicts the packet"
    10 BadIcmpMessage "bad-icmp-message" "an ICMP message that is cut short"
    11 BadArpPacket "bad-arp-packet" "an ARP packet that is not about IPv4 on Ethernet"
    12 TransportNotAllowed "transport-not-allowed" "a protocol above IP other than TCP, UDP and ICMP"
    13 SourceRoute "source-route" "IPv4 options that choose the route"
    // classify
    16 UnknownInterface "unknown-interface" "no zone has this interface and VLAN"
    17 SpoofedSource "spoofed-source" "the source address belongs to no zone of the interface it came in on"
    18 UnknownDestination "unknown-destination" "the destination address belongs to no zone"
    19 NoConduit "no-conduit" "no conduit allows this traffic between the two zones"
    20 NeighbourNotAllowed "neighbour-not-allowed" "address resolution about a host that the policy does not know, or addressed to one that is not on the link"
    21 IcmpTypeNotAllowed "icmp-type-not-allowed" "an ICMP message other than echo, errors and neighbour discovery"
    // track
    24 NoFlow "no-flow" "a segment of a connection that is not known"
    25 BadTcpFlags "bad-tcp-flags" "TCP flags that no connection has in this place"
    26 SynWithData "syn-with-data" "a connection request that carries data"
    27 NewFlowRate "new-flow-rate" "new flows come faster than the conduit allows"
    28 FlowTableFull "flow-table-full" "no room for another flow"
    29 FlowBusy "flow-busy" "the flow was being judged on another processor for too long"
    30 OutOfOrder "out-of-order" "a segment ahead of the one that is due; its sender repeats it"
    31 OutOfWindow "out-of-window" "a segment outside the receiver's window"
    32 ChangedRetransmission "changed-retransmission" "a repeated segment with other bytes than the first time"
    33 UrgentData "urgent-data" "TCP urgent data, which receivers read in different ways"
    34 DataAfterFin "data-after-fin" "data after the sender closed its side"
    35 PolicyChanged "policy-changed" "the policy in force no longer allows this flow"
    36 FlowEnded "flow-ended" "the flow was ended after an earlier denial"
    37 IcmpErrorWithoutFlow "icmp-error-without-flow" "an ICMP error about a flow that is not known"
    38 HistoryFull "history-full" "more unacknowledged bytes or requests than can be remembered; the sender repeats the segment"
    39 FlowAdopted "flow-adopted" "a connection that was open before the gateway is picked up"
    // inspect and decide
    40 ModbusProtocolId "modbus-protocol-id" "the protocol id of the MBAP header is not 0"
    41 ModbusLength "modbus-length" "the length of the MBAP header is outside 2 to 254"
    42 ModbusLengthMismatch "modbus-length-mismatch" "the length of the MBAP header is not the one that the function implies"
    43 UnitNotAllowed "unit-not-allowed" "no rule of the conduit names this unit"
    44 FunctionNotAllowed "function-not-allowed" "no rule of the conduit allows this function code on this unit"
    45 SubFunctionNotAllowed "sub-function-not-allowed" "no rule allows this diagnostics sub-function"
    46 MeiTypeNotAllowed "mei-type-not-allowed" "no rule allows this MEI type"
    47 RegisterNotAllowed "register-not-allowed" "no rule allows these registers or coils"
    48 ValueNotAllowed "value-not-allowed" "a written value is outside what the rule allows"
    49 StepTooLarge "step-too-large" "a written value is too far from the last one"
    50 RateExceeded "rate-exceeded" "operations come faster than the rule allows"
    51 UnsolicitedReply "unsolicited-reply" "a reply that answers no outstanding request"
    52 ReplyMismatch "reply-mismatch" "a reply whose unit, function or count is not the request's"
    53 TooManyOutstanding "too-many-outstanding" "more requests without a reply than allowed"
    54 TooManyAdus "too-many-adus" "more ADUs in one segment than can be judged"
    55 SplitRequest "split-request" "the first part of a request, behind one that waits for its reply; its sender repeats it"
}

/// How many reasons the counters make room for: a power of two above every number in [`Reason`].
/// Number 0 stands for frames that passed.
pub const REASON_SLOTS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number_and_label() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert!(u32::from(reason.number()) < REASON_SLOTS);
            assert_eq!(Reason::from_number(reason.number()), Some(*reason));
            for other in Reason::ALL.iter().skip(index + 1) {
                assert_ne!(reason.label(), other.label());
            }
        }
        assert_eq!(Reason::from_number(0), None);
    }
}
