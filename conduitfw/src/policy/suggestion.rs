//! "Did you mean": the nearest of the names that would be valid in a place.

/// The candidate nearest to `found`, if it is near enough to be a slip of the pen.
pub(super) fn nearest<'c>(
    found: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    // A long text is no slip, and comparing it with every name would take its time.
    if found.len() > 128 {
        return None;
    }
    let allowed = (found.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != found)
        .map(|candidate| (distance(found, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= allowed && distance < candidate.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", or `otherwise` when nothing is near.
pub(super) fn did_you_mean<'c>(
    found: &str,
    candidates: impl IntoIterator<Item = &'c str>,
    otherwise: impl FnOnce() -> String,
) -> String {
    match nearest(found, candidates) {
        Some(name) => format!("did you mean `{name}`?"),
        None => otherwise(),
    }
}

/// "`a`, `b` or `c`", at most eight of them.
pub(super) fn list<'c>(names: impl IntoIterator<Item = &'c str>) -> String {
    let mut quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    if quoted.len() > 8 {
        let more = quoted.len() - 7;
        quoted.truncate(7);
        return format!("{} or {more} others", quoted.join(", "));
    }
    match quoted.pop() {
        None => "nothing".to_owned(),
        Some(last) if quoted.is_empty() => last,
        Some(last) => format!("{} or {last}", quoted.join(", ")),
    }
}

/// Edit distance; letter case and `_` for `-` cost nothing.
fn distance(found: &str, candidate: &str) -> usize {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    strsim::osa_distance(&plain(found), &plain(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_found() {
        let names = ["cell-a", "cell-b", "scada-dmz"];
        assert_eq!(nearest("celll-a", names), Some("cell-a"));
        assert_eq!(nearest("Cell_B", names), Some("cell-b"));
        assert_eq!(nearest("scada-dzm", names), Some("scada-dmz"));
    }

    #[test]
    fn another_word_is_not_a_slip() {
        assert_eq!(nearest("historian", ["cell-a", "hmi"]), None);
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest(&"a".repeat(5000), ["a"]), None);
    }

    #[test]
    fn lists_read_like_a_sentence() {
        assert_eq!(list(["a"]), "`a`");
        assert_eq!(list(["a", "b", "c"]), "`a`, `b` or `c`");
        assert!(list(["a", "b", "c", "d", "e", "f", "g", "h", "i"]).ends_with("or 2 others"));
    }
}
