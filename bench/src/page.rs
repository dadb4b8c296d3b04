//! The page of the documentation.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::report::{FLOOR, FLOOR_AND_EVENT, Report};
use crate::targets::{PACKET_RATE, control, gateway, load};

/// The page: what is measured and how, the tables of this run, and why a target is missed.
pub(crate) fn write(report: &Report, instructions: &Path) -> String {
    let counts = fs::read_to_string(instructions).unwrap_or_default();
    let mut text = format!("{HEAD}{}", report.tables());
    text.push_str(BOUNDS);
    text.push_str(&bounds(report, &counts));
    if !counts.is_empty() {
        let _ = writeln!(text, "{COUNTS}{counts}");
    }
    text.push_str(TAIL);
    text
}

/// A denial that is told of, and one that is not.
const DENIED: &str = "denied function, with its event";
const DENIED_UNTOLD: &str = "denied function, its event lost";

/// What this run says about how far any program could get.
fn bounds(report: &Report, counts: &str) -> String {
    let mut text = String::new();
    let on_veth = |name: &str| report.path(load::LOCK_STEP_ON_VETH, name);
    let outstanding = |name: &str| report.path(load::OUTSTANDING_32, name);
    if let Some(((pass, ours), fast)) = on_veth(gateway::PASSING)
        .zip(on_veth(gateway::CONDUITFW))
        .zip(on_veth(gateway::FAST))
    {
        let _ = writeln!(
            text,
            "- **Lock step on veth alone.** The targets are held against figures over wires, which give \
             the gateway its frames as a network card does. On veth alone an XDP program of two \
             instructions makes {:.3} of bare forwarding, for it gets a copy of what bare forwarding gets \
             for nothing, the sender's own socket buffer; conduitfw makes {:.3} and {:.3} there.",
            pass.ratio_to_bare, ours.ratio_to_bare, fast.ratio_to_bare
        );
    }
    if let Some(((pass, bare), ours)) = outstanding(gateway::PASSING)
        .zip(outstanding(gateway::BARE))
        .zip(outstanding(gateway::CONDUITFW))
    {
        let _ = writeln!(
            text,
            "- **32 outstanding, kernel forwarding.** Against nftables with the function code bare \
             forwarding itself makes {:.3}, the program that only passes {:.3}, conduitfw {:.3}: what the \
             kernel forwards cannot be faster than the kernel's forwarding.",
            bare.ratio_to_function_code, pass.ratio_to_function_code, ours.ratio_to_function_code
        );
    }
    text.push_str(&bounds_of_rates(report, counts));
    let floor = report.frame(FLOOR).zip(report.frame(FLOOR_AND_EVENT));
    let event = report.frame(DENIED).zip(report.frame(DENIED_UNTOLD));
    if let Some(((floor, record), (told, untold))) = floor.zip(event) {
        let _ = writeln!(
            text,
            "- **A denial with its event.** {told:.0} ns, and {untold:.0} when the event is lost. The floor \
             with a record of that size in the kernel's ring buffer, filled with one number, takes \
             {record:.0} ns, or {:.2} floors: the record is reserved under a lock and handed over. \
             conduitfw writes a ring of its own for each processor.",
            record / floor
        );
    }
    let switch = report.figure(control::SWITCH);
    let parts = report
        .figure(control::COMPILE)
        .zip(report.figure(control::TOML));
    if let Some((switch, (compile, toml))) = switch.zip(parts) {
        let _ = writeln!(
            text,
            "- **Switch of 10,000 rules.** {switch:.0} ms from the command to its answer; *beside \
             traffic* is the same while a client and its server keep both processors busy, and frames that \
             are lost are counted there. Reading and compiling the text takes {compile:.0} ms of a processor. \
             For a tree of the same text the TOML library alone would take {toml:.0} ms; so the controller \
             has its parser's events only, and asks for the tree when something is wrong with the text.",
        );
    }
    text.push('\n');
    text
}

/// The same about frames a second.
fn bounds_of_rates(report: &Report, counts: &str) -> String {
    let mut text = String::new();
    let rate = |name: &str| report.rates.iter().find(|row| row.gateway == name);
    let executed = |name: &str| {
        let mut rows = counts.lines().map(|line| line.split('|').map(str::trim));
        let count = rows.find_map(|mut cells| (cells.nth(1)? == name).then(|| cells.next())?);
        count.unwrap_or("?").to_owned()
    };
    if let Some((((pass, follow), ours), bare)) = rate(gateway::PASSING)
        .zip(rate(gateway::FOLLOWING))
        .zip(rate(gateway::CONDUITFW))
        .zip(rate(gateway::BARE))
    {
        let _ = writeln!(
            text,
            "- **Packet rate, kernel forwarding.** The program that only passes makes {:.3}, the one \
             that parses and looks a flow up, as every stateful firewall has to, {:.3}, conduitfw \
             {:.3}: {:.0}, {:.0} and {:.0} ns a frame. The target leaves {:.0} ns for all that is done with \
             a frame; the lookup executes {} instructions, conduitfw {} for a request and {} for its reply, none of them \
             in a helper: lookups and the tick counter are part of the program.",
            pass.ratio,
            follow.ratio,
            ours.ratio,
            pass.ns,
            follow.ns,
            ours.ns,
            bare.ns * (1.0 / PACKET_RATE - 1.0),
            executed(FLOOR),
            executed("FC3, request"),
            executed("FC3, reply")
        );
    }
    if let Some((least, ours)) = rate(gateway::REDIRECTING).zip(rate(gateway::FAST)) {
        let _ = writeln!(
            text,
            "- **Packet rate, fast forwarding.** The program that asks the routing table for each frame \
             and only redirects makes {:.3}, conduitfw {:.3}: it asks once a tick for frames that are alike.",
            least.ratio, ours.ratio
        );
    }
    if let Some(((plain, follow), ours)) = rate(gateway::PLAIN_DROP)
        .zip(rate(gateway::FOLLOWING_DROP))
        .zip(rate(gateway::DROPS))
    {
        let _ = writeln!(
            text,
            "- **Drops.** {:.0} ns a frame for the plain drop, sender included, {:.0} for a program that \
             parses, looks a flow up and drops ({:.3}), {:.0} for conduitfw ({:.3}): the denial is counted \
             as well, and an event written while there is room. The first request of a kind is held \
             against the policy; of those alike that follow in its place it is known what becomes.",
            plain.ns, follow.ns, follow.ratio, ours.ns, ours.ratio
        );
    }
    text
}

const HEAD: &str = "\
# Performance

`cargo xtask bench` measures all of this in one run and writes this page. Options go after `--`:

| option | what it does |
| --- | --- |
| `--json` | one object instead of tables |
| `--save FILE`, `--compare FILE` | keep the figures, hold others against them |
| `--only frames,pairs,paths,time,rates,control,worst` | only these parts |
| `--only tuning` | settings of the gateway under load: see [tuning.md](tuning.md) |
| `--rounds N` | more of them: seven unless said (frames beside others have theirs) |
| `--case WORDS` | only frames in whose name these stand, with the floor: some seconds |
| `--case WORDS --against OBJECT` | the same of two builds of the kernel program, turn about |
| `--instructions` | how many instructions a frame takes: the same in every run |
| `--spin CASE` | one case's frames until interrupted, for `perf record` |

Figures are medians over the rounds, in which the cases take turns; *min* and *max* are the rounds'
extremes. Nanoseconds are of this machine. Ratios are what can be compared, and only those of one
run. A machine that has other work to do spoils them: see the load average.

A target beside which something stands under *at best* has in the same run a gateway that does less than any
firewall has to: one that only forwards, or a program that parses a frame, looks its flow up and does nothing
more. Where that misses the target as well it is *out of reach* on this machine, and not *MISSED*.

";

const BOUNDS: &str = "\
## How far a program could get

What this run says about the bound of each:

";

const COUNTS: &str = "\
## Instructions

What a frame executes above an empty program, counted by emulation (`--instructions`, Linux 6.12, x86-64),
helpers and map lookups included. This machine executes some twenty of them in a nanosecond at best.

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
the plain loop and the script agree. A round's figure is the lower quartile of its blocks, for other work
on the machine makes some dearer; and a ratio is the median of each round's figure against the floor as it was
measured beside it. After each sample the counters must say that all frames met the
fate that the case is about. The same object loaded twice differs by up to a sixth, by where the kernel
puts it and its maps: after every second round all is loaded anew.

**Frames beside others**, of which one may cost hardly more than the other, go through the same program, paced by the
same one, turn about; a policy of 10,000 rules is in the same maps as one of ten, and the switch between them is a
reload's. Only flows over 64k entries and their floor are two programs. Seven rounds in each of seven loads; *min*
and *max* are those of the loads.

**Floors** are our own programs: one that only returns, one that parses, one that parses and looks the
flow up in an LRU hash (*the* floor of the ratios), the same over 1k and 64k flows, one that parses and
inserts.

**Paths** are real TCP connections through labs of namespaces that differ only in what filters on
the gateway. Between hosts and gateway are wires (`bench/src/wires.rs`): an XDP program that carries frames
from one veth to another, so that the gateway gets them as the driver of a network card has them, in
buffers with room in front and with checksums that are finished. (Not marked as checked, though: the
kernel's receive offload sums up every segment that XDP does not forward, in bare forwarding too.) *Plain
veth* is without. A request asks for ten registers; requests and replies are a segment each, as the
Modbus/TCP guide has it. In lock step client and server share a processor; elsewhere each has one,
unless it says otherwise. *32 outstanding* is two connections with 16 requests each, for conduitfw
lets no more than 16 wait in one. Gateways take turns of 120 ms on connections that stay open, two or three a
round, and a ratio is the median of those of neighbouring turns, also for p99.9. In lock step bare and fast
forwarding have thirty for the ratio of p99.9: of one turn that is the fourth longest transaction or so. Client and server run with
real-time priority, so that other work on the machine delays but little.

**Time**: one client with a processor of its own asks at an even pace and sleeps in between, so that
every transaction begins and ends with a processor that has to wake up. *Added* is against bare
forwarding.

**Packet rate**: live frames of `BPF_PROG_TEST_RUN` into a veth, 64 requests and then their 64 replies
the other way, counted by an XDP program behind the gateway. Sender, gateway and receiver share one
processor, and all gateways carry the same cost of the other two. A round has six turns; drops are in each of
them, forwarding in two, and what has no target in one. Half a million frames in a run: with few
of them what it takes to begin one makes all gateways look alike; of 20 ms 40 ns a frame are left. With so
many frames a second nearly all that leave fast are like one that left in the same tick; one that is not
costs the question to the routing table as well, some 60 ns. Connection tracking is spared its
checksums, as with a network card that checks them. Of fast forwarding the kernel's counters must say that
it forwarded nothing itself.

**Control**: *work* of a switch is the whole `conduitfw reload`, the process that asks included; *effect*
is the one write to `ACTIVE`. Frames lost are those that the client had to send again.

**The slowest frame** is found by search: a hundred and sixty frames for each size, each the best one so
far with a change, against a policy in which every register has limits of its own. The check fails when
it is a quarter slower, in floors, than `bench/slowest.txt` says; both are the lowest of many samples, so
that a busy machine does not fail it. Within an MTU of 9,000: in native mode a frame
must fit one buffer, and an interface whose MTU is above 3,498 is refused in words, so the second bound
holds for every frame. In generic mode the kernel makes larger frames whole; a test run cannot, so what
those cost is not measured: by the figures above, some 15 ns a byte.

What could not be measured here: cache misses and other hardware counters (the virtual machine has
none), network cards, other kernels' speed, and more than two processors.
";
