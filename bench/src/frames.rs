//! Single frames: every case once a round, and one build held against another.

use std::fmt::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::builder::{Builder, Wanted};
use crate::cases::{Case, median};
use crate::policy::knows_registers;
use crate::report::{FLOOR, FrameRow, Report, table};

/// The wanted cases.
pub(crate) fn cases(object: &Path, floors: &Path, wanted: Wanted<'_>) -> Result<Vec<Case>> {
    let cases = Builder::new(object, floors, knows_registers(), wanted).build();
    cases.with_context(|| object.display().to_string())
}

/// Rounds after which everything is loaded anew. Where the kernel puts a program and its maps makes up to a
/// sixth of what a frame costs, and stays as it is for as long as they are loaded.
const ROUNDS_OF_A_LOAD: usize = 2;

/// Every case once a round.
pub(crate) fn measure(
    report: &mut Report,
    (object, floors): (&Path, &Path),
    wanted: Wanted<'_>,
) -> Result<()> {
    eprintln!("==> frames: {} rounds", report.rounds);
    let mut cases = Vec::new();
    let mut sheet = Sheet::default();
    for round in 0..report.rounds {
        if round % ROUNDS_OF_A_LOAD == 0 {
            drop(cases);
            cases = load(object, floors, wanted)?;
        }
        sheet.round(&mut cases)?;
    }
    report.frames = sheet.rows(&cases)?;
    Ok(())
}

/// The cases, loaded and warm.
pub(crate) fn load(object: &Path, floors: &Path, wanted: Wanted<'_>) -> Result<Vec<Case>> {
    let mut cases = cases(object, floors, wanted)?;
    after_a_load();
    for case in &mut cases {
        case.spin()?;
    }
    Ok(cases)
}

/// Waits: the maps of the load before are given back behind the scenes.
pub(crate) fn after_a_load() {
    thread::sleep(AFTER_A_LOAD);
}

/// After so many cases the floor is measured again: each is held against the floor of that moment.
const FLOOR_EVERY: usize = 2;

/// How long the kernel may be busy with what was unloaded.
const AFTER_A_LOAD: Duration = Duration::from_millis(500);

/// The same cases of two builds, turn about; what each costs, and the difference.
pub(crate) fn against(
    report: &mut Report,
    (object, floors): (&Path, &Path),
    before: &Path,
    wanted: Wanted<'_>,
) -> Result<String> {
    eprintln!("==> frames of two builds: {} rounds", report.rounds);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut our_sheet, mut their_sheet) = (Sheet::default(), Sheet::default());
    for round in 0..report.rounds {
        if round % ROUNDS_OF_A_LOAD == 0 {
            ours = load(object, floors, wanted)?;
            theirs = load(before, floors, wanted)?;
        }
        their_sheet.round(&mut theirs)?;
        our_sheet.round(&mut ours)?;
    }
    report.frames = our_sheet.rows(&ours)?;
    let theirs = their_sheet.rows(&theirs)?;
    let row = |row: &FrameRow| {
        let other = theirs.iter().find(|other| other.name == row.name)?;
        let change = |now: f64, before: f64| {
            format!(
                "{:+.1} ({:+.1}%)",
                now - before,
                (now / before - 1.0) * 100.0
            )
        };
        Some(vec![
            row.name.clone(),
            format!("{:.1}", other.lowest),
            format!("{:.1}", row.lowest),
            change(row.lowest, other.lowest),
            change(row.ns, other.ns),
        ])
    };
    let rows: Vec<_> = report.frames.iter().filter_map(row).collect();
    let heads = [
        "frame",
        "lowest before",
        "lowest now",
        "change",
        "of medians",
    ];
    Ok(table(&heads, &rows))
}

/// What a change in the program is judged by: the lowest samples, which other work on the machine
/// disturbs least.
pub(crate) fn quick(report: &Report) -> String {
    let lowest = |name: &str| {
        let row = report.frames.iter().find(|row| row.name == name);
        row.map_or(f64::NAN, |row| row.lowest)
    };
    let floor = lowest(FLOOR);
    let row = |row: &FrameRow| {
        vec![
            row.name.clone(),
            format!("{:.1}", row.lowest),
            format!("{:.2}", row.lowest / floor),
            format!("{:.1}", row.ns),
            format!("{:.2}", row.ratio_to_floor),
        ]
    };
    let rows: Vec<_> = report.frames.iter().map(row).collect();
    let heads = ["frame", "lowest ns", "x floor", "median ns", "x floor"];
    let mut text = table(&heads, &rows);
    let _ = write!(text, "\n{} rounds", report.rounds);
    text
}

/// What frames cost above an empty program, where a nanosecond is an instruction.
pub(crate) fn instructions(report: &Report) -> String {
    let above = |row: &FrameRow| row.lowest - row.empty;
    let floor = report.frames.iter().find(|row| row.name == FLOOR);
    let floor = floor.map_or(f64::NAN, above);
    let row = |row: &FrameRow| {
        let count = above(row);
        vec![
            row.name.clone(),
            format!("{count:.0}"),
            format!("{:.2}", count / floor),
        ]
    };
    let rows: Vec<_> = report.frames.iter().map(row).collect();
    table(&["frame", "instructions", "x floor"], &rows)
}

/// The figures of one build.
#[derive(Default)]
struct Sheet {
    /// By case and template.
    places: Vec<Vec<Place>>,
    /// The floor, as it was measured last.
    floor: f64,
    empty: Vec<f64>,
}

/// The figures of a template.
#[derive(Clone)]
struct Place {
    rounds: Vec<f64>,
    /// The floor, beside each of them.
    floors: Vec<f64>,
    lowest_with: f64,
    lowest_without: f64,
}

impl Place {
    const NOTHING: Self = Self {
        rounds: Vec::new(),
        floors: Vec::new(),
        lowest_with: f64::INFINITY,
        lowest_without: f64::INFINITY,
    };
}

impl Sheet {
    fn round(&mut self, cases: &mut [Case]) -> Result<()> {
        if self.places.is_empty() {
            let places = cases.iter();
            let places = places.map(|case| vec![Place::NOTHING; case.names.len()]);
            self.places = places.collect();
        }
        let floor = cases.iter().position(|case| case.title() == FLOOR);
        for at in 0..cases.len() {
            if let Some(floor) = floor.filter(|_| at % FLOOR_EVERY == 0) {
                self.floor = self.measure(cases, floor)?;
            }
            if floor != Some(at) {
                self.measure(cases, at)?;
            }
        }
        self.empty.push(cases[0].empty_loop()?);
        Ok(())
    }

    /// Measures a case; what its first template costs.
    fn measure(&mut self, cases: &mut [Case], at: usize) -> Result<f64> {
        let figures = cases[at].measure()?;
        let first = figures.first().map_or(0.0, |figure| figure.usual);
        for (place, figure) in self.places[at].iter_mut().zip(figures) {
            place.rounds.push(figure.usual);
            place.floors.push(self.floor);
            place.lowest_with = place.lowest_with.min(figure.lowest_with);
            place.lowest_without = place.lowest_without.min(figure.lowest_without);
        }
        Ok(first)
    }

    fn rows(mut self, cases: &[Case]) -> Result<Vec<FrameRow>> {
        let empty = median(&mut self.empty);
        let lowest_empty = self.empty.first().copied().unwrap_or(empty);
        let mut rows = Vec::new();
        for (case, places) in cases.iter().zip(&mut self.places) {
            for (name, place) in case.names.iter().zip(places) {
                let Some(name) = name else { continue };
                let beside = place.rounds.iter().zip(&place.floors);
                let mut ratios: Vec<f64> = beside
                    .map(|(round, floor)| (round + empty) / (floor + empty))
                    .collect();
                let middle = median(&mut place.rounds);
                rows.push(FrameRow {
                    name: name.clone(),
                    ns: middle + empty,
                    ratio_to_floor: if name == FLOOR {
                        1.0
                    } else {
                        median(&mut ratios)
                    },
                    min: place.rounds.first().map_or(0.0, |round| round + empty),
                    max: place.rounds.last().map_or(0.0, |round| round + empty),
                    empty: lowest_empty,
                    lowest: place.lowest_with - place.lowest_without + lowest_empty,
                });
            }
        }
        let has_floor = rows.iter().any(|row| row.name == FLOOR);
        ensure!(has_floor, "the floor was not measured");
        Ok(rows)
    }
}
