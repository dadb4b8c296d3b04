//! From what people write to what the kernel reads.
//!
//! One direction, as the stages of a frame: `document` reads the TOML text with its places kept,
//! `resolve` turns names into numbers and refuses what contradicts itself, `lint` remarks on
//! what is allowed and may still surprise, `compile` lays out the tables. Every stage reports all
//! the problems it finds, each with its place in the text.
//!
//! This module knows neither the kernel nor a clock nor a socket.
#![deny(unsafe_code)]

mod compile;
mod diagnostic;
mod document;
mod lint;
mod model;
mod resolve;
mod source;
mod suggestion;
mod tables;
mod value;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

pub use compile::{
    CompiledTables, Ids, NameKind, Surroundings, TooManyNames, address_words, compile, party_number,
};
pub use diagnostic::{Diagnostic, Refusal, Severity, printable};
pub use document::keys;
pub use model::{
    Asset, AssetId, Bridge, ByteSet, Conduit, Forwarding, Limits, ModbusRule, ModbusTable, Mode,
    NewFlows, Number, NumberRange, NumberType, OnDeny, OperandRange, Operands, PartyId, Policy,
    PolicyNames, PortRange, Rate, Site, TableRanges, Timeouts, Vlans, WordOrder, Written, Zone,
    ZoneId,
};

use diagnostic::Diagnostics;
use source::Source;

/// The largest policy that is read.
pub const MAX_POLICY_BYTES: usize = 4 << 20;

/// A policy that was read, resolved and found to fit.
#[derive(Debug)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// What is allowed and may still surprise.
    pub notes: Vec<Diagnostic>,
}

/// A policy that was laid out.
#[derive(Debug)]
pub struct Compiled {
    /// The policy.
    pub loaded: Loaded,
    /// Its tables.
    pub tables: CompiledTables,
    /// The numbers of its names, and of those known before.
    pub ids: Ids,
}

/// A policy that was read and resolved. What is wrong with it is told once it is laid out, when all
/// of it is known.
#[derive(Debug)]
pub struct Draft {
    policy: Policy,
    diagnostics: Diagnostics,
}

impl Draft {
    /// The policy, which may have errors yet.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Lays it out for no machine in particular.
    ///
    /// # Errors
    /// Every problem of the policy.
    pub fn check(mut self) -> Result<Loaded, Refusal> {
        let pairs = compile::check(&self.policy, &mut self.diagnostics);
        self.finish(&pairs)
    }

    /// Lays it out, with numbers beyond those that are `known`.
    ///
    /// # Errors
    /// Every problem of the policy, and what the surroundings contradict.
    pub fn compile(
        mut self,
        known: &Ids,
        surroundings: &Surroundings,
    ) -> Result<Compiled, Refusal> {
        let mut ids = known.clone();
        let (tables, pairs) =
            compile::build(&self.policy, &mut ids, surroundings, &mut self.diagnostics);
        Ok(Compiled {
            loaded: self.finish(&pairs)?,
            tables,
            ids,
        })
    }

    fn finish(mut self, pairs: &compile::Pairs) -> Result<Loaded, Refusal> {
        if self.diagnostics.has_errors() {
            return Err(self.diagnostics.into_refusal());
        }
        lint::remark(&self.policy, pairs, &mut self.diagnostics);
        Ok(Loaded {
            policy: self.policy,
            notes: self.diagnostics.into_notes(),
        })
    }
}

/// Reads a policy from a file.
///
/// # Errors
/// Every problem of the policy; or one without a line when the file cannot be read
/// ([`Refusal::is_unreadable`]).
pub fn load(path: &Path) -> Result<Loaded, Refusal> {
    load_text(&path.display().to_string(), &read_text(path)?)
}

/// Reads the text of a policy from a file, and looks no further.
///
/// # Errors
/// The file cannot be read ([`Refusal::is_unreadable`]), is too large, or is no text.
pub fn read_text(path: &Path) -> Result<String, Refusal> {
    let file_name = path.display().to_string();
    let unreadable =
        |what: String| Refusal::without_place(&file_name, Refusal::UNREADABLE, what, "");
    let file = File::open(path).map_err(|error| unreadable(format!("cannot open it: {error}")))?;
    // The size that the file says it has spares reading it in small pieces; nothing rests on it.
    let size = file.metadata().map_or(0, |about| about.len());
    let mut bytes =
        Vec::with_capacity(usize::try_from(size).unwrap_or(0).min(MAX_POLICY_BYTES) + 1);
    let one_more = MAX_POLICY_BYTES as u64 + 1;
    file.take(one_more)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(format!("cannot read it: {error}")))?;
    match String::from_utf8(bytes) {
        Ok(text) if text.len() > MAX_POLICY_BYTES => Err(too_large(&file_name)),
        Ok(text) => Ok(text),
        // Cut within a character by the limit: the size is the problem, not the encoding.
        Err(error) if error.as_bytes().len() > MAX_POLICY_BYTES => Err(too_large(&file_name)),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let before = error.as_bytes().get(..valid).unwrap_or_default();
            let line = before.split(|byte| *byte == b'\n').count();
            Err(Refusal::without_place(
                &file_name,
                "not-utf-8",
                format!("byte {} (line {line}) is not UTF-8 text", valid + 1),
                "save the policy as UTF-8",
            ))
        }
    }
}

/// Reads a policy from its text; `file_name` is only shown.
///
/// # Errors
/// Every problem of the policy.
pub fn load_text(file_name: &str, text: &str) -> Result<Loaded, Refusal> {
    draft(file_name, text)?.check()
}

/// Reads and resolves a policy, to be laid out.
///
/// # Errors
/// The text is not TOML, or too large.
pub fn draft(file_name: &str, text: &str) -> Result<Draft, Refusal> {
    if text.len() > MAX_POLICY_BYTES {
        return Err(too_large(file_name));
    }
    let source = Arc::new(Source::new(file_name, text));
    let mut diagnostics = Diagnostics::new(Arc::clone(&source));
    let document = document::read(&source, &mut diagnostics);
    // Names and relations of a half-read document are still checked: all problems at once.
    match document {
        Some(document) => Ok(Draft {
            policy: resolve::resolve(document, &source, &mut diagnostics),
            diagnostics,
        }),
        None => Err(diagnostics.into_refusal()),
    }
}

fn too_large(file_name: &str) -> Refusal {
    Refusal::without_place(
        file_name,
        "file-too-large",
        format!("the policy is larger than {MAX_POLICY_BYTES} bytes"),
        "is this the right file?",
    )
}
