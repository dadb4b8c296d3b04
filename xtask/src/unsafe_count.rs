//! How much unsafe code there is, against a count that is checked in: growth shows in review.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};

/// Blocks of unsafe code by file, relative to the workspace.
pub(crate) type UnsafeBlocks = BTreeMap<String, usize>;

/// The only files that may hold unsafe code, by what they need it for.
const ALLOWED: [&str; 16] = [
    // Helpers of the kernel, frame memory, map memory.
    "conduitfw-ebpf/src/atomic.rs",
    "conduitfw-ebpf/src/bin/floors.rs",
    "conduitfw-ebpf/src/forward.rs",
    "conduitfw-ebpf/src/frame.rs",
    "conduitfw-ebpf/src/history.rs",
    "conduitfw-ebpf/src/kernel.rs",
    "conduitfw-ebpf/src/main.rs",
    "conduitfw-ebpf/src/maps.rs",
    "conduitfw-ebpf/src/report.rs",
    "conduitfw-ebpf/src/verifier.rs",
    // Descriptors in the event loop; many rows in one system call; memory that the kernel writes;
    // the wait for frames in flight; the one `unsafe impl Pod`; memory given back to the machine.
    "conduitfw/src/daemon.rs",
    "conduitfw/src/dataplane/batch.rs",
    "conduitfw/src/dataplane/grace.rs",
    "conduitfw/src/dataplane/maps.rs",
    "conduitfw/src/dataplane/rings.rs",
    "conduitfw/src/memory.rs",
];

/// Counts the unsafe blocks, implementations and functions in a source text.
///
/// Attributes such as `#[unsafe(no_mangle)]` and everything in comments and strings are left out.
pub(crate) fn count(source: &str) -> usize {
    let code: String = source.lines().map(code_of).collect::<Vec<_>>().join("\n");
    let words: Vec<&str> = code
        .split(|letter: char| letter.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect();
    words
        .iter()
        .enumerate()
        .filter(|(index, word)| {
            let next = words.get(index + 1).copied().unwrap_or_default();
            let opens = |text: &str| text.starts_with('{');
            let declares = ["fn", "impl", "trait", "extern"]
                .iter()
                .any(|word| next.strip_prefix(word).is_some_and(|rest| !continues(rest)));
            word.ends_with("unsafe") && is_keyword(word) && (opens(next) || declares)
                || word.ends_with("unsafe{")
        })
        .count()
}

/// Whether a word goes on, so that `implement` is not taken for `impl`.
fn continues(rest: &str) -> bool {
    rest.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_')
}

fn is_keyword(word: &str) -> bool {
    let before = word
        .strip_suffix("unsafe")
        .unwrap_or_default()
        .chars()
        .next_back();
    !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
}

/// A line without its comment and without what stands in its strings.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if in_string => {
                letters.next();
            }
            '"' => in_string = !in_string,
            '/' if !in_string && letters.peek() == Some(&'/') => break,
            _ if !in_string => code.push(letter),
            _ => {}
        }
    }
    code
}

/// Counts all sources.
pub(crate) fn count_all<'a>(
    root: &Path,
    files: impl Iterator<Item = &'a str>,
) -> Result<UnsafeBlocks> {
    let mut blocks = UnsafeBlocks::new();
    for file in files {
        let source = std::fs::read_to_string(root.join(file)).with_context(|| file.to_owned())?;
        let found = count(&source);
        if found > 0 {
            blocks.insert(file.to_owned(), found);
        }
    }
    Ok(blocks)
}

/// Reads the count that is checked in: a number and a file a line.
pub(crate) fn parse(text: &str) -> Result<UnsafeBlocks> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (number, file) = line
                .split_once(' ')
                .with_context(|| format!("`{line}` is not a number and a file"))?;
            let number = number
                .parse()
                .with_context(|| format!("`{number}` is no number"))?;
            Ok((file.trim().to_owned(), number))
        })
        .collect()
}

/// The count as it is checked in.
pub(crate) fn render(blocks: &UnsafeBlocks) -> String {
    let lines: Vec<String> = blocks
        .iter()
        .map(|(file, number)| format!("{number} {file}"))
        .collect();
    lines.join(
        "
",
    ) + "
"
}

/// What differs from the count that is checked in, and what may not be at all.
pub(crate) fn complaints(found: &UnsafeBlocks, recorded: &UnsafeBlocks) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, number) in found {
        if !ALLOWED.contains(&file.as_str()) {
            complaints.push(format!(
                "{file}: {number} unsafe, in a file that may hold none"
            ));
        }
    }
    for file in found
        .keys()
        .chain(recorded.keys().filter(|file| !found.contains_key(*file)))
    {
        let count = |blocks: &UnsafeBlocks| blocks.get(file).copied().unwrap_or(0);
        if count(found) != count(recorded) {
            complaints.push(format!(
                "{file}: {} unsafe, {} recorded in xtask/unsafe-count.txt",
                count(found),
                count(recorded)
            ));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_implementations_and_functions_count() {
        assert_eq!(count("let x = unsafe { y };"), 1);
        assert_eq!(count("f(unsafe { y }, unsafe {\n z })"), 2);
        assert_eq!(count("unsafe impl Pod for X {}\nunsafe fn f() {}"), 2);
        assert_eq!(count("unsafe impl<T: Copy> Pod for X<T> {}"), 1);
        assert_eq!(count("let x =\n    unsafe\n    { y };"), 1);
    }

    #[test]
    fn attributes_comments_and_strings_do_not() {
        assert_eq!(count("#[unsafe(no_mangle)]\nstatic X: u8 = 1;"), 0);
        assert_eq!(count("// unsafe { here }\n/// unsafe impl"), 0);
        assert_eq!(count("let x = \"unsafe { text }\";"), 0);
        assert_eq!(count("#![forbid(unsafe_code)]"), 0);
    }

    #[test]
    fn growth_and_shrinkage_are_told() {
        let found = parse("3 conduitfw-ebpf/src/maps.rs\n").unwrap();
        let recorded =
            parse("# a remark\n2 conduitfw-ebpf/src/maps.rs\n1 conduitfw-ebpf/src/frame.rs\n")
                .unwrap();
        assert_eq!(complaints(&found, &recorded).len(), 2);
        assert_eq!(complaints(&found, &found), Vec::<String>::new());
    }

    #[test]
    fn unsafe_code_elsewhere_is_told() {
        let found = parse("1 conduitfw/src/main.rs\n").unwrap();
        assert_eq!(complaints(&found, &UnsafeBlocks::new()).len(), 2);
    }

    #[test]
    fn the_count_reads_back_as_it_was_written() {
        let text = "1 a.rs\n22 b.rs\n";
        assert_eq!(render(&parse(text).unwrap()), text);
    }
}
