//! What is asked on the command line, as `key=value` words.

use std::ops::RangeInclusive;

use conduitfw_common::modbus::function::FunctionCode;

use crate::policy::ModbusTable;

/// The Modicon number of an address: five digits where they suffice.
pub(super) fn modicon(table: ModbusTable, address: u16) -> Option<String> {
    let digit = table.modicon_digit()?;
    let number = u32::from(address) + 1;
    Some(if number <= 9999 {
        format!("{digit}{number:04}")
    } else {
        format!("{digit}{number:05}")
    })
}

/// The table and the address that a Modicon number stands for.
fn of_modicon(text: &str) -> Option<(ModbusTable, u16)> {
    let digit = text.chars().next()?.to_digit(10);
    let table = ModbusTable::ALL
        .into_iter()
        .find(|table| table.modicon_digit() == digit)?;
    let rest = text.get(1..)?;
    if !matches!(rest.len(), 4 | 5) || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u32 = rest.parse().ok()?;
    Some((table, u16::try_from(number.checked_sub(1)?).ok()?))
}

/// The address that somebody may mean who takes an address for the Modicon number of this table.
pub(super) fn meant_as_modicon(table: ModbusTable, address: u16) -> Option<u16> {
    // Of four digits and less, everybody takes them for addresses.
    let (found, meant) = of_modicon(&address.to_string())?;
    (found == table).then_some(meant)
}

/// One `key=value`.
#[derive(Debug)]
struct Field {
    key: String,
    value: String,
    is_quoted: bool,
    is_taken: bool,
}

/// Words of the form `key=value`, or a bare `key`.
#[derive(Debug)]
pub(super) struct Fields(Vec<Field>);

impl Fields {
    /// Splits the text at spaces, and at commas before another `key=`; a value in quotes is a
    /// Modicon number.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut words: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            for (index, part) in word.split(',').enumerate() {
                match words.last_mut() {
                    // A comma within a list of values.
                    Some(last) if index > 0 && !part.contains('=') => {
                        last.push(',');
                        last.push_str(part);
                    }
                    _ => words.push(part.to_owned()),
                }
            }
        }
        let mut fields: Vec<Field> = Vec::new();
        for word in &words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let bare = value.trim_matches(['"', '\'']);
            if fields.iter().any(|field| field.key == key) {
                return Err(format!("`{key}` is given twice"));
            }
            fields.push(Field {
                key: key.to_owned(),
                value: bare.to_owned(),
                is_quoted: bare != value,
                is_taken: false,
            });
        }
        Ok(Self(fields))
    }

    fn take(&mut self, key: &str) -> Option<&Field> {
        let field = self.0.iter_mut().find(|field| field.key == key)?;
        field.is_taken = true;
        Some(field)
    }

    /// Whether there is such a word, with a value or without.
    pub(super) fn flag(&mut self, key: &str) -> bool {
        self.take(key).is_some()
    }

    /// The value of `key`.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.take(key).map(|field| field.value.clone())
    }

    /// The number that `key` has, within a range.
    pub(super) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<u16>,
    ) -> Result<Option<u16>, String> {
        let Some(field) = self.take(key) else {
            return Ok(None);
        };
        let number = integer(&field.value)
            .and_then(|number| u16::try_from(number).ok())
            .filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            format!(
                "`{key}={}` is out of place, expected {} to {}",
                field.value,
                range.start(),
                range.end()
            )
        })
    }

    /// The same, where there must be one.
    pub(super) fn required(
        &mut self,
        key: &str,
        range: RangeInclusive<u16>,
        what: &str,
    ) -> Result<u16, String> {
        self.number(key, range)?
            .ok_or_else(|| format!("{what} needs `{key}=`"))
    }

    /// A byte.
    pub(super) fn byte(&mut self, key: &str) -> Result<Option<u8>, String> {
        let number = self.number(key, 0..=255)?;
        Ok(number.and_then(|number| u8::try_from(number).ok()))
    }

    /// An address counted from 0, or the Modicon number (in quotes, or as `register=`).
    pub(super) fn address(
        &mut self,
        prefix: &str,
        function: FunctionCode,
    ) -> Result<Option<u16>, String> {
        let register_key = format!("{prefix}register");
        let address_key = format!("{prefix}address");
        let (as_register, as_address) = (self.has(&register_key), self.has(&address_key));
        if as_register && as_address {
            return Err(format!(
                "`{address_key}` counts from 0, `{register_key}` is a Modicon number: give one"
            ));
        }
        let key = if as_register {
            &register_key
        } else {
            &address_key
        };
        let is_modicon = as_register || self.take(key).is_some_and(|field| field.is_quoted);
        if !is_modicon {
            return self.number(key, 0..=u16::MAX);
        }
        let text = self.text(key).unwrap_or_default();
        let (table, address) = of_modicon(&text).ok_or_else(|| {
            format!(
                "`{key}={text}` is not a Modicon number, as in \"40011\" for the holding register \
                 at address 10"
            )
        })?;
        match ModbusTable::of(function) {
            Some(own) if own != table => Err(format!(
                "{text} is a {}, and {} is about a {}",
                table.item(),
                function_words(function),
                own.item()
            )),
            _ => Ok(Some(address)),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.0.iter().any(|field| field.key == key)
    }

    /// Refuses what nobody has asked for.
    pub(super) fn finish(&self, what: &str, known: &[&str]) -> Result<(), String> {
        let Some(field) = self.0.iter().find(|field| !field.is_taken) else {
            return Ok(());
        };
        let key = &field.key;
        if known.contains(&key.as_str()) {
            return Err(format!("{what} has no `{key}`"));
        }
        Err(format!(
            "`{key}` is not known here{}",
            did_you_mean(key, known)
        ))
    }
}

/// A whole number: decimal, also negative, or hexadecimal after `0x`.
pub(super) fn integer(text: &str) -> Option<i64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `, did you mean ...?` when one of the known words is near.
pub(super) fn did_you_mean(found: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|word| (strsim::osa_distance(found, word), word))
        .min()
        .filter(|(distance, _)| *distance <= (found.len() / 3).max(1));
    near.map_or_else(String::new, |(_, word)| format!(", did you mean `{word}`?"))
}

/// `read-holding-registers (3)`, or `function 90`.
pub(super) fn function_words(function: FunctionCode) -> String {
    match function.name() {
        Some(name) => format!("{name} ({})", function.0),
        None => format!("function {}", function.0),
    }
}

/// A function by its code or its name.
pub(super) fn function(text: &str) -> Result<FunctionCode, String> {
    if let Some(number) = integer(text) {
        let code = u8::try_from(number);
        return code
            .map(FunctionCode)
            .map_err(|_| format!("{text} is not a function code, expected 0 to 255"));
    }
    let found = FunctionCode::NAMED.iter().find(|(_, name)| *name == text);
    found.map(|(code, _)| *code).ok_or_else(|| {
        let names: Vec<&str> = FunctionCode::NAMED.iter().map(|(_, name)| *name).collect();
        format!(
            "`{text}` is not a Modbus function{}",
            did_you_mean(text, &names)
        )
    })
}

/// A number, or one of the names for it.
pub(super) fn named_number(text: &str, what: &str, names: &[(u16, &str)]) -> Result<u16, String> {
    if let Some(number) = integer(text) {
        return u16::try_from(number).map_err(|_| format!("{text} is not a {what}"));
    }
    let found = names.iter().find(|(_, name)| *name == text);
    found.map(|(number, _)| *number).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(_, name)| *name).collect();
        format!("`{text}` is not a {what}{}", did_you_mean(text, &names))
    })
}

/// Bytes in hexadecimal.
pub(super) fn hex(text: &str) -> Result<Vec<u8>, String> {
    let refused = || format!("`{text}` is not a row of bytes in hexadecimal, as in 0e0100");
    let text = text.strip_prefix("0x").unwrap_or(text);
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err(refused());
    }
    (0..text.len())
        .step_by(2)
        .map(|at| {
            let digits = text.get(at..at + 2).ok_or_else(refused)?;
            u8::from_str_radix(digits, 16).map_err(|_| refused())
        })
        .collect()
}
