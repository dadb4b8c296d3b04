//! The page of the documentation.

use crate::report::Report;

/// The page: what is measured and how, and the tables of this run.
pub(crate) fn write(report: &Report) -> String {
    format!("{HEAD}{}{TAIL}", report.tables())
}

const HEAD: &str = "\
# Performance

`cargo xtask bench` measures all of this in one run and writes this page. Options go after `--`:
`--json`, `--save FILE` and `--compare FILE` (two builds), `--only frames,paths,rates,control,worst`,
`--rounds N`, `--spin CASE` (gives one case's frames until interrupted, for `perf record`).

Figures are medians over the rounds, in which the cases take turns; *min* and *max* are the rounds'
extremes. Nanoseconds are of this machine. Ratios are what can be compared, and only those of one
run. A machine that has other work to do spoils them: see the load average.

";

const TAIL: &str = "\
## How it is measured

**Frames** go through the program as it was built, by `BPF_PROG_TEST_RUN`. A plain repetition would
give the same bytes each time, and to a program that follows connections that is one segment and then
repetitions of it. So a program of our own (`pace`, in `conduitfw-ebpf/src/bin/floors.rs`) writes the next
frame of a script over the frame at hand: fresh sequence numbers and transaction ids, another flow, a
request and then its reply. It takes the time and hands the frame on by a tail call. The time from one
beginning to the next belongs to the frame before. The same script is timed with an empty program
behind it in the same round, and that is taken off; what an empty program costs in the plain loop of a
test run is added to every case alike, the floors included. For a frame that may be repeated (an ACK)
the plain loop and the script were compared: the script reads 5 to 10 ns more, because the program finds
the header bytes just written. After each sample the counters must say that all frames met the fate that
the case is about.

**Floors** are our own programs: one that only returns, one that parses, one that parses and looks the
flow up in an LRU hash (*the* floor of the ratios), the same over 1k and 64k flows, one that parses and
inserts.

**Paths** are real TCP connections through four labs of namespaces that differ only in what filters on
the gateway. One request asks for ten registers. In lock step client and server share a processor;
elsewhere each has one. *32 outstanding* is two connections with 16 requests each, for conduitfw lets
no more than 16 wait in one.

**Packet rate**: live frames of `BPF_PROG_TEST_RUN` into a veth, 64 requests and then their 64 replies
the other way, counted by an XDP program behind the gateway. Sender, gateway and receiver share one
processor, so the ratios understate differences: all gateways carry the same cost of the sender and the
receiver. Connection tracking is spared its checksums, as with a network card that checks them.

**Control**: *work* of a switch is the whole `conduitfw reload`, the process that asks included; *effect*
is the one write to `ACTIVE`. Frames lost are those that the client had to send again.

**The slowest frame** is found by search: a hundred and sixty frames for each size, each the best one so
far with a change, against a policy in which every register has limits of its own. It fails when it is a
quarter slower, in floors, than `bench/slowest.txt` says. A frame over some 3,500 bytes is not in one piece, and
a program for frames in pieces this is not: the kernel refuses to attach it in native mode to a veth of
an MTU above that, and the error says so. In generic mode the kernel makes frames whole.

What could not be measured here: hardware counters (the virtual machine has none), network cards, other
kernels, and more than two processors.
";
