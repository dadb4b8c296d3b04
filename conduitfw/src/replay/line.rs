//! What is said of one frame.

use std::io::{self, Write};

use conduitfw_common::{
    Reason, Verdict,
    event::{EventOperation, field},
};

use super::CaptureTime;

/// A judged frame.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Its number in the capture, from 1.
    pub number: u64,
    /// When it was captured.
    pub time: CaptureTime,
    /// What happens to it; `None` when the kernel takes no frames of its length.
    pub verdict: Option<Verdict>,
    /// Why it is denied, or would be; of a frame that passes, what is remarkable.
    pub reason: Option<Reason>,
    /// The conduit on whose account it goes.
    pub conduit: Option<&'a str>,
    /// The operations that were judged in it, and why not.
    pub operations: &'a [(EventOperation, Option<Reason>)],
}

impl Line<'_> {
    /// Writes it as one JSON object and a line end.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        write!(
            out,
            r#"{{"frame":{},"time":{},"verdict":"#,
            self.number, self.time
        )?;
        write_word(out, self.verdict.map(Verdict::label))?;
        out.write_all(br#","reason":"#)?;
        write_word(out, self.reason.map(Reason::label))?;
        out.write_all(br#","conduit":"#)?;
        match self.conduit {
            Some(name) => serde_json::to_writer(&mut *out, name)?,
            None => out.write_all(b"null")?,
        }
        out.write_all(br#","operations":["#)?;
        for (index, (operation, reason)) in self.operations.iter().enumerate() {
            if index > 0 {
                out.write_all(b",")?;
            }
            self.write_operation(out, operation, *reason)?;
        }
        out.write_all(b"]}\n")
    }

    fn write_operation(
        &self,
        out: &mut impl Write,
        operation: &EventOperation,
        reason: Option<Reason>,
    ) -> io::Result<()> {
        let numbers = [
            ("unit", field::HEADER, u16::from(operation.unit)),
            ("function", field::FUNCTION, u16::from(operation.function)),
            ("address", field::ADDRESS, operation.address),
            ("quantity", field::QUANTITY, operation.quantity),
        ];
        let mut before = '{';
        for (name, bit, number) in numbers {
            if operation.fields & bit == 0 {
                write!(out, r#"{before}"{name}":null"#)?;
            } else {
                write!(out, r#"{before}"{name}":{number}"#)?;
            }
            before = ',';
        }
        let verdict = match reason {
            Some(_) => self.verdict,
            None => Some(Verdict::Pass),
        };
        out.write_all(br#","verdict":"#)?;
        write_word(out, verdict.map(Verdict::label))?;
        out.write_all(br#","reason":"#)?;
        write_word(out, reason.map(Reason::label))?;
        out.write_all(b"}")
    }
}

/// Labels need no escapes.
fn write_word(out: &mut impl Write, word: Option<&str>) -> io::Result<()> {
    match word {
        Some(word) => write!(out, r#""{word}""#),
        None => out.write_all(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(line: &Line<'_>) -> String {
        let mut bytes = Vec::new();
        line.write_json(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_one_json_object() {
        let read = EventOperation {
            fields: field::HEADER | field::FUNCTION | field::ADDRESS | field::QUANTITY,
            unit: 1,
            function: 3,
            address: 0,
            quantity: 10,
            ..EventOperation::default()
        };
        let unclear = EventOperation {
            fields: field::HEADER,
            unit: 2,
            ..EventOperation::default()
        };
        let line = Line {
            number: 7,
            time: CaptureTime(1_108_201_742_945_447_001),
            verdict: Some(Verdict::Reset),
            reason: Some(Reason::ModbusLength),
            conduit: Some("a \"quoted\" name"),
            operations: &[(read, None), (unclear, Some(Reason::ModbusLength))],
        };
        let text = written(&line);
        assert!(text.contains(r#""time":1108201742.945447001,"#), "{text}");
        assert!(text.ends_with("]}\n"));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value["operations"],
            json!([
                {"unit": 1, "function": 3, "address": 0, "quantity": 10, "verdict": "pass",
                 "reason": null},
                {"unit": 2, "function": null, "address": null, "quantity": null,
                 "verdict": "reset", "reason": "modbus-length"},
            ])
        );
        assert_eq!(value["conduit"], "a \"quoted\" name");
    }

    #[test]
    fn the_shortest_line() {
        let line = Line {
            number: 1,
            time: CaptureTime(-1),
            verdict: None,
            reason: None,
            conduit: None,
            operations: &[],
        };
        assert_eq!(
            written(&line),
            "{\"frame\":1,\"time\":-0.000000001,\"verdict\":null,\"reason\":null,\
             \"conduit\":null,\"operations\":[]}\n"
        );
    }
}
