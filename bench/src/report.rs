//! What was measured: one value for JSON, and the tables that people read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// The yardstick of all ratios of frames.
pub(crate) const FLOOR: &str = "floor: parse and one flow lookup";
/// The floor, and what it takes to tell of a frame.
pub(crate) const FLOOR_AND_EVENT: &str = "floor, and a ring buffer record";

/// A whole run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// Where it ran.
    pub(crate) machine: Machine,
    /// Rounds, each with every case once.
    pub(crate) rounds: usize,
    /// Frames.
    pub(crate) frames: Vec<FrameRow>,
    /// Frames beside those that they are held against.
    pub(crate) pairs: Vec<PairRow>,
    /// Real connections through a gateway.
    pub(crate) paths: Vec<PathRow>,
    /// The same at the pace of a plant.
    pub(crate) time: Vec<TimeRow>,
    /// Settings of the gateway.
    pub(crate) tuning: Vec<TuningRow>,
    /// Frames a second through a gateway.
    pub(crate) rates: Vec<RateRow>,
    /// The controller.
    pub(crate) control: Vec<ControlRow>,
    /// The slowest frames that were found.
    pub(crate) worst: Vec<WorstRow>,
    /// What was wanted beside what was found.
    pub(crate) targets: Vec<TargetRow>,
    /// What this run could not measure, and why.
    pub(crate) not_measured: Vec<String>,
    /// Seconds that the run took.
    pub(crate) seconds: f64,
}

/// What one kind of frame costs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FrameRow {
    /// The frame.
    pub(crate) name: String,
    /// Median over the rounds, with the empty loop of a test run.
    pub(crate) ns: f64,
    /// The same divided by the floor's.
    pub(crate) ratio_to_floor: f64,
    /// The lowest round.
    pub(crate) min: f64,
    /// The highest.
    pub(crate) max: f64,
    /// The lowest block of all, which other work on the machine disturbed least.
    #[serde(default)]
    pub(crate) lowest: f64,
    /// What of it the empty loop is.
    #[serde(default)]
    pub(crate) empty: f64,
}

/// What a frame costs against another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PairRow {
    /// The frame.
    pub(crate) frame: String,
    /// The other.
    pub(crate) against: String,
    /// Median over the loads.
    pub(crate) ratio: f64,
    /// The lowest load.
    pub(crate) min: f64,
    /// The highest.
    pub(crate) max: f64,
}

/// Transactions of real clients.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PathRow {
    /// How the clients asked.
    pub(crate) load: String,
    /// What the gateway did.
    pub(crate) gateway: String,
    /// Median of the slices.
    pub(crate) transactions_a_second: f64,
    /// A quarter of the slices had less.
    pub(crate) low: f64,
    /// A quarter had more.
    pub(crate) high: f64,
    /// Median of the ratios to bare forwarding, slice by slice.
    pub(crate) ratio_to_bare: f64,
    /// The same to an XDP program that only passes.
    pub(crate) ratio_to_passing: f64,
    /// The same to nftables that matches the function code.
    pub(crate) ratio_to_function_code: f64,
    /// Microseconds of a transaction, over all rounds.
    pub(crate) p50: f64,
    /// The same, of 99 in a hundred.
    pub(crate) p99: f64,
    /// Of 999 in a thousand.
    pub(crate) p99_9: f64,
    /// The same against bare forwarding: median of the ratios, slice by slice.
    pub(crate) tail_to_bare: f64,
    /// The longest.
    pub(crate) max_us: f64,
}

/// Transactions at an even pace.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TimeRow {
    /// The pace.
    pub(crate) transactions_a_second: u32,
    /// What the gateway did.
    pub(crate) gateway: String,
    /// How many there were.
    pub(crate) transactions: usize,
    /// Microseconds of a transaction.
    pub(crate) p50: f64,
    /// The same, of 99 in a hundred.
    pub(crate) p99: f64,
    /// Of 999 in a thousand.
    pub(crate) p99_9: f64,
    /// The longest.
    pub(crate) max_us: f64,
    /// Standard deviation, in microseconds.
    pub(crate) deviation: f64,
    /// Microseconds more than bare forwarding, at the median.
    pub(crate) added: f64,
    /// The same at the 99th in a hundred.
    pub(crate) added_p99: f64,
}

/// A setting of the gateway.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TuningRow {
    /// How the clients asked.
    pub(crate) load: String,
    /// What was set.
    pub(crate) setting: String,
    /// What the gateway did.
    pub(crate) gateway: String,
    /// Median of the slices.
    pub(crate) transactions_a_second: f64,
    /// Microseconds of a transaction.
    pub(crate) p50: f64,
    /// The same, of 99 in a hundred.
    pub(crate) p99: f64,
    /// Of 999 in a thousand.
    pub(crate) p99_9: f64,
}

/// Frames a second.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RateRow {
    /// What the gateway did.
    pub(crate) gateway: String,
    /// Median of the rounds.
    pub(crate) frames_a_second: f64,
    /// The lowest round.
    pub(crate) min: f64,
    /// The highest.
    pub(crate) max: f64,
    /// Ratio to bare forwarding, or of drops to the plain drop.
    pub(crate) ratio: f64,
    /// Nanoseconds of a frame, from the sender to the receiver.
    #[serde(default)]
    pub(crate) ns: f64,
}

/// A figure of the controller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ControlRow {
    /// What.
    pub(crate) name: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: String,
    /// The lowest round.
    pub(crate) min: f64,
    /// The highest.
    pub(crate) max: f64,
}

/// The slowest frame of a kind.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorstRow {
    /// What frames were tried.
    pub(crate) name: String,
    /// Nanoseconds.
    pub(crate) ns: f64,
    /// The same divided by the floor's.
    pub(crate) ratio_to_floor: f64,
    /// How many frames were tried.
    pub(crate) tried: usize,
    /// What is in it, in words.
    pub(crate) what: String,
    /// Its bytes.
    pub(crate) frame: String,
}

/// What was wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TargetRow {
    /// The case.
    pub(crate) case: String,
    /// The bound, in words.
    pub(crate) wanted: String,
    /// What was found; nothing when the case does not exist.
    pub(crate) found: Option<f64>,
    /// Whether it is kept.
    pub(crate) is_met: bool,
    /// What a gateway made in the same run that does less than any firewall has to, where there is one.
    pub(crate) at_best: Option<f64>,
    /// Whether that keeps it.
    pub(crate) is_reachable: bool,
}

impl Report {
    /// The nanoseconds of a frame.
    pub(crate) fn frame(&self, name: &str) -> Option<f64> {
        Some(self.frame_row(name)?.ns)
    }

    /// A frame's ratio to the floor.
    pub(crate) fn in_floors(&self, name: &str) -> Option<f64> {
        Some(self.frame_row(name)?.ratio_to_floor)
    }

    fn frame_row(&self, name: &str) -> Option<&FrameRow> {
        self.frames.iter().find(|row| row.name == name)
    }

    /// What a frame costs against another.
    pub(crate) fn pair(&self, frame: &str, against: &str) -> Option<f64> {
        let mut rows = self.pairs.iter();
        let row = rows.find(|row| row.frame == frame && row.against == against)?;
        Some(row.ratio)
    }

    /// A path's row.
    pub(crate) fn path(&self, load: &str, gateway: &str) -> Option<&PathRow> {
        self.paths
            .iter()
            .find(|row| row.load == load && row.gateway == gateway)
    }

    /// A figure of the controller.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        let row = self.control.iter().find(|row| row.name == name)?;
        Some(row.value)
    }

    /// All tables, as Markdown, which is also fit for a terminal.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}\n", self.machine.sentence());
        section(&mut text, "Targets", &self.target_table());
        section(&mut text, "Frames", &self.frame_table());
        section(&mut text, "Frames beside others", &self.pair_table());
        section(&mut text, "Paths", &self.path_table());
        section(&mut text, "Time", &self.time_table());
        section(&mut text, "Settings", &self.tuning_table());
        section(&mut text, "Packet rate", &self.rate_table());
        section(&mut text, "Control", &self.control_table());
        section(&mut text, "The slowest frame", &self.worst_table());
        let missing: Vec<Vec<String>> = self
            .not_measured
            .iter()
            .map(|line| vec![line.clone()])
            .collect();
        section(
            &mut text,
            "Not measured",
            &table(&["what, and why"], &missing),
        );
        text
    }

    fn target_table(&self) -> String {
        let row = |row: &TargetRow| {
            let found = match row.found {
                Some(found) => short(found),
                None if row.case.contains("fast forwarding") => "not built".to_owned(),
                None => "not measured".to_owned(),
            };
            let mark = match (row.is_met, row.is_reachable) {
                (true, _) => "kept",
                (false, true) => "MISSED",
                (false, false) => "out of reach",
            };
            vec![
                row.case.clone(),
                row.wanted.clone(),
                found,
                row.at_best.map_or_else(String::new, short),
                mark.to_owned(),
            ]
        };
        let rows: Vec<_> = self.targets.iter().map(row).collect();
        table(&["case", "wanted", "found", "at best", ""], &rows)
    }

    fn frame_table(&self) -> String {
        let row = |row: &FrameRow| {
            vec![
                row.name.clone(),
                format!("{:.0}", row.ns),
                format!("{:.2}", row.ratio_to_floor),
                format!("{:.0}", row.min),
                format!("{:.0}", row.max),
            ]
        };
        let rows: Vec<_> = self.frames.iter().map(row).collect();
        table(&["frame", "ns", "ratio to floor", "min", "max"], &rows)
    }

    fn pair_table(&self) -> String {
        let row = |row: &PairRow| {
            vec![
                row.frame.clone(),
                row.against.clone(),
                format!("{:.3}", row.ratio),
                format!("{:.3}", row.min),
                format!("{:.3}", row.max),
            ]
        };
        let rows: Vec<_> = self.pairs.iter().map(row).collect();
        table(&["frame", "against", "ratio", "min", "max"], &rows)
    }

    fn path_table(&self) -> String {
        let row = |row: &PathRow| {
            vec![
                row.load.clone(),
                row.gateway.clone(),
                format!("{:.0}", row.transactions_a_second),
                format!("{:.0}-{:.0}", row.low, row.high),
                format!("{:.3}", row.ratio_to_bare),
                format!("{:.3}", row.ratio_to_passing),
                format!("{:.3}", row.ratio_to_function_code),
                format!("{:.0}", row.p50),
                format!("{:.0}", row.p99),
                format!("{:.0}", row.p99_9),
                format!("{:.3}", row.tail_to_bare),
                format!("{:.0}", row.max_us),
            ]
        };
        let rows: Vec<_> = self.paths.iter().map(row).collect();
        let heads = [
            "load",
            "gateway",
            "transactions/s",
            "quartiles",
            "x bare",
            "x XDP pass",
            "x nft function",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "p99.9 x bare",
            "max us",
        ];
        table(&heads, &rows)
    }

    fn time_table(&self) -> String {
        let row = |row: &TimeRow| {
            vec![
                row.transactions_a_second.to_string(),
                row.gateway.clone(),
                row.transactions.to_string(),
                format!("{:.1}", row.p50),
                format!("{:+.1}", row.added),
                format!("{:.1}", row.p99),
                format!("{:+.1}", row.added_p99),
                format!("{:.1}", row.p99_9),
                format!("{:.1}", row.max_us),
                format!("{:.1}", row.deviation),
            ]
        };
        let rows: Vec<_> = self.time.iter().map(row).collect();
        let heads = [
            "a second",
            "gateway",
            "transactions",
            "p50 us",
            "added",
            "p99 us",
            "added",
            "p99.9 us",
            "max us",
            "deviation",
        ];
        table(&heads, &rows)
    }

    fn tuning_table(&self) -> String {
        let row = |row: &TuningRow| {
            vec![
                row.load.clone(),
                row.setting.clone(),
                row.gateway.clone(),
                format!("{:.0}", row.transactions_a_second),
                format!("{:.1}", row.p50),
                format!("{:.1}", row.p99),
                format!("{:.1}", row.p99_9),
            ]
        };
        let rows: Vec<_> = self.tuning.iter().map(row).collect();
        let heads = [
            "load",
            "setting",
            "gateway",
            "transactions/s",
            "p50 us",
            "p99 us",
            "p99.9 us",
        ];
        table(&heads, &rows)
    }

    fn rate_table(&self) -> String {
        let row = |row: &RateRow| {
            vec![
                row.gateway.clone(),
                format!("{:.0}", row.frames_a_second),
                format!("{:.0}-{:.0}", row.min, row.max),
                format!("{:.3}", row.ratio),
                format!("{:.0}", row.ns),
            ]
        };
        let rows: Vec<_> = self.rates.iter().map(row).collect();
        let heads = ["gateway", "frames/s", "rounds", "ratio", "ns"];
        table(&heads, &rows)
    }

    fn control_table(&self) -> String {
        let row = |row: &ControlRow| {
            vec![
                row.name.clone(),
                short(row.value),
                row.unit.clone(),
                format!("{}-{}", short(row.min), short(row.max)),
            ]
        };
        let rows: Vec<_> = self.control.iter().map(row).collect();
        table(&["what", "median", "unit", "rounds"], &rows)
    }

    fn worst_table(&self) -> String {
        let row = |row: &WorstRow| {
            vec![
                row.name.clone(),
                format!("{:.0}", row.ns),
                format!("{:.1}", row.ratio_to_floor),
                row.tried.to_string(),
                row.what.clone(),
            ]
        };
        let rows: Vec<_> = self.worst.iter().map(row).collect();
        table(
            &[
                "within",
                "ns",
                "ratio to floor",
                "frames tried",
                "the frame",
            ],
            &rows,
        )
    }

    /// Every figure that both runs have, and how it changed. Ratios where there are any, for the
    /// machine may have been busier in one of them.
    pub(crate) fn compare(&self, before: &Self) -> String {
        let (old, new) = (before.ratios(), self.ratios());
        let row = |(name, new): (&String, &f64)| {
            let old = old.get(name)?;
            let change = if *old == 0.0 {
                0.0
            } else {
                (new / old - 1.0) * 100.0
            };
            let cells = [short(*old), short(*new), format!("{change:+.1}%")];
            Some([vec![name.clone()], cells.to_vec()].concat())
        };
        let rows: Vec<_> = new.iter().filter_map(row).collect();
        table(&["case", "before", "now", "change"], &rows)
    }

    fn ratios(&self) -> BTreeMap<String, f64> {
        let mut all = BTreeMap::new();
        for row in &self.frames {
            all.insert(format!("frame, {}", row.name), row.ratio_to_floor);
        }
        for row in &self.pairs {
            let name = format!("frame, {}, against {}", row.frame, row.against);
            all.insert(name, row.ratio);
        }
        for row in &self.paths {
            all.insert(
                format!("path, {}, {}", row.load, row.gateway),
                row.ratio_to_bare,
            );
        }
        for row in &self.time {
            let name = format!(
                "time, {} a second, {}",
                row.transactions_a_second, row.gateway
            );
            all.insert(format!("{name}, p50 (us)"), row.p50);
            all.insert(format!("{name}, p99 (us)"), row.p99);
        }
        for row in &self.rates {
            all.insert(format!("rate, {}", row.gateway), row.ratio);
        }
        for row in &self.control {
            all.insert(format!("control, {} ({})", row.name, row.unit), row.value);
        }
        for row in &self.worst {
            all.insert(format!("slowest, {}", row.name), row.ratio_to_floor);
        }
        all
    }
}

fn section(text: &mut String, title: &str, table: &str) {
    if !table.is_empty() {
        let _ = writeln!(text, "## {title}\n\n{table}");
    }
}

/// Three digits that say something.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// A table with columns of even width; nothing when it has no rows.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let longest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            longest.max(heads[column].chars().count())
        })
        .collect();
    let mut text = String::new();
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    line(&mut text, &heads, &widths);
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    line(&mut text, &rule, &widths);
    for row in rows {
        line(&mut text, row, &widths);
    }
    text
}

fn line(text: &mut String, cells: &[String], widths: &[usize]) {
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(text, "| {cell:<width$} ");
    }
    text.push_str("|\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "1".to_owned()]];
        assert_eq!(
            table(&["name", "n"], &rows),
            "| name | n |\n| ---- | - |\n| a    | 1 |\n"
        );
    }

    #[test]
    fn a_comparison_is_of_ratios() {
        let with = |ratio_to_floor| Report {
            frames: vec![FrameRow {
                name: "ACK".to_owned(),
                ns: 10.0,
                ratio_to_floor,
                min: 9.0,
                max: 11.0,
                lowest: 9.0,
                empty: 5.0,
            }],
            ..Report::default()
        };
        let text = with(1.5).compare(&with(1.2));
        assert!(text.contains("+25.0%"), "{text}");
    }
}
