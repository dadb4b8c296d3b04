//! Which registers, files and sub-functions a request may name: at the edges of each range, and
//! with quantities and lengths that lie.

use anyhow::Result;
use conduitfw_common::Reason;
use conduitfw_tests::conversation::Want::{self, Pass, Reset};
use conduitfw_tests::conversation::plant;
use conduitfw_tests::frames::modbus::{
    diagnostics, encapsulated, fields, mask_write, read, read_write, write_coils, write_registers,
    write_single,
};
use conduitfw_tests::stage;

const ELSEWHERE: Want = Reset(Reason::RegisterNotAllowed);
const LIES: Want = Reset(Reason::ModbusLengthMismatch);

/// A request of `function` for `quantity` registers or coils from `address` on.
fn request(function: u8, address: u16, quantity: u16) -> Vec<u8> {
    let many = usize::from(quantity);
    match function {
        1..=4 => read(function, address, quantity),
        5 | 6 => write_single(function, address, 0),
        15 => write_coils(address, &vec![false; many]),
        16 => write_registers(address, &vec![0; many]),
        22 => mask_write(address, 0, 0),
        24 => fields(24, &[address]),
        _ => read_write((address, quantity), address, &vec![0; many]),
    }
}

#[test]
fn every_function_at_the_edges_of_a_range() -> Result<()> {
    let table = "{ first = 10, last = 19 }, { first = 20, last = 29 }, { first = 31, last = 40 }";
    let policy = plant(
        "",
        &[
            &format!("functions = [1, 5, 15]\ncoils = [{table}]"),
            &format!("functions = [2]\ndiscrete_inputs = [{table}]"),
            &format!("functions = [4]\ninput_registers = [{table}]"),
            &format!("functions = [3, 6, 16, 22, 23, 24]\nholding_registers = [{table}]"),
        ],
    );
    let mut stage = stage!(&policy);
    for function in [1, 2, 3, 4, 5, 6, 15, 16, 22, 23, 24] {
        let is_single = matches!(function, 5 | 6 | 22 | 24);
        for (address, quantity, is_allowed) in [
            (9, 1, false),
            (10, 1, true),
            (19, 1, true),
            (20, 1, true),
            (29, 1, true),
            (30, 1, false),
            (31, 1, true),
            (40, 1, true),
            (41, 1, false),
            (0, 1, false),
            (65_535, 1, false),
            (9, 2, false),
            (10, 20, true),
            (10, 21, false),
            (19, 2, true),
            (29, 2, false),
            (29, 3, false),
            (30, 2, false),
            (31, 10, true),
            (31, 11, false),
            (10, 31, false),
        ] {
            if is_single && quantity != 1 {
                continue;
            }
            let name = format!("function {function}, {quantity} from {address}");
            let want = if is_allowed { Pass } else { ELSEWHERE };
            stage.each(&[(&name, request(function, address, quantity), want)])?;
        }
    }
    stage.finish()
}

#[test]
fn ranges_of_several_rules_touch() -> Result<()> {
    let policy = plant(
        "",
        &[
            "functions = [3, 16]\nregisters = [{ first = 0, last = 9 }]",
            "functions = [3, 16]\nregisters = [{ first = 10, last = 19 }]",
            "functions = [3]\nregisters = [{ first = 20, last = 29 }]",
            "functions = [3, 16]\nregisters = [{ first = 30, last = 39 }]\nmax_rate = \"1000/s \
             burst 100\"",
        ],
    );
    let mut stage = stage!(&policy);
    stage.each(&[
        ("across two rules", read(3, 0, 20), Pass),
        ("across three", read(3, 5, 25), Pass),
        ("writes across two", write_registers(9, &[0; 2]), Pass),
        (
            "writes beyond what may be written",
            write_registers(19, &[0; 2]),
            ELSEWHERE,
        ),
        ("reads into a rule with a rate", read(3, 29, 2), ELSEWHERE),
        ("reads within it", read(3, 30, 10), Pass),
        ("reads from it outwards", read(3, 39, 2), ELSEWHERE),
    ])?;
    stage.finish()
}

#[test]
fn the_last_register_there_is() -> Result<()> {
    let whole = "functions = [3, 16, 23]\nregisters = [{ first = 65000, last = 65535 }]";
    let mut stage = stage!(&plant("", &[whole]));
    let quantity_0 = [&fields(16, &[65_000, 0])[..], &[0]].concat();
    stage.each(&[
        ("the last", read(3, 65_535, 1), Pass),
        ("one beyond", read(3, 65_535, 2), ELSEWHERE),
        ("125 up to the last", read(3, 65_411, 125), Pass),
        ("125 beyond", read(3, 65_412, 125), ELSEWHERE),
        ("all of them", read(3, 65_000, 65_535), ELSEWHERE),
        ("as many as there are", read(3, 65_000, 536), Pass),
        ("none", read(3, 65_000, 0), Pass),
        ("none, before the range", read(3, 64_999, 0), ELSEWHERE),
        ("writes the last", write_registers(65_535, &[0]), Pass),
        (
            "writes around the end",
            write_registers(65_535, &[0; 2]),
            ELSEWHERE,
        ),
        ("writes none", quantity_0, Pass),
        (
            "reads around, writes within",
            read_write((65_535, 2), 65_000, &[0]),
            ELSEWHERE,
        ),
        (
            "writes around, reads within",
            read_write((65_000, 2), 65_535, &[0; 2]),
            ELSEWHERE,
        ),
    ])?;
    stage.finish()
}

#[test]
fn both_ranges_of_function_23() -> Result<()> {
    let rule =
        "functions = [23]\nregisters = [{ first = 10, last = 19 }, { first = 30, last = 39 }]";
    let mut stage = stage!(&plant("", &[rule]));
    for (name, from, to, want) in [
        ("same range", (10, 10), (10, 10), Pass),
        ("other range", (10, 10), (30, 10), Pass),
        ("other way round", (30, 10), (10, 10), Pass),
        ("reads before", (9, 1), (10, 1), ELSEWHERE),
        ("writes before", (10, 1), (9, 1), ELSEWHERE),
        ("reads one more", (10, 11), (30, 1), ELSEWHERE),
        ("writes one more", (10, 1), (30, 11), ELSEWHERE),
        ("reads in the gap", (20, 1), (30, 1), ELSEWHERE),
        ("writes in the gap", (30, 1), (20, 1), ELSEWHERE),
        ("reads 65,535", (10, 65_535), (10, 1), ELSEWHERE),
        ("reads none outside", (20, 0), (10, 1), ELSEWHERE),
    ] {
        let values = vec![0; to.1];
        stage.each(&[(name, read_write(from, to.0, &values), want)])?;
    }
    stage.finish()
}

/// A counted request whose byte count, quantity or length is not what the others say.
#[test]
fn counts_that_lie() -> Result<()> {
    let mut stage = stage!(&plant("", &["functions = [\"writes\", 3, 20]"]));
    let with = |mut pdu: Vec<u8>, at: usize, byte: u8| {
        pdu[at] = byte;
        pdu
    };
    let longer = |mut pdu: Vec<u8>| {
        pdu.push(0);
        pdu
    };
    let shorter = |mut pdu: Vec<u8>| {
        pdu.pop();
        pdu
    };
    let (coils, registers) = (write_coils(0, &[true; 9]), write_registers(0, &[1, 2]));
    let both = read_write((0, 1), 0, &[1, 2]);
    for (name, pdu, count_at, quantity_at) in [
        ("coils", coils, 5, 4),
        ("registers", registers, 5, 4),
        ("read and write", both, 9, 8),
    ] {
        let count = pdu[count_at];
        stage.each(&[
            (&format!("{name}, right"), pdu.clone(), Pass),
            (
                &format!("{name}, count 0"),
                with(pdu.clone(), count_at, 0),
                LIES,
            ),
            (
                &format!("{name}, count + 1"),
                with(pdu.clone(), count_at, count + 1),
                LIES,
            ),
            (
                &format!("{name}, count - 1"),
                with(pdu.clone(), count_at, count - 1),
                LIES,
            ),
            (
                &format!("{name}, count 255"),
                with(pdu.clone(), count_at, 255),
                LIES,
            ),
            (
                &format!("{name}, quantity 0"),
                with(pdu.clone(), quantity_at, 0),
                LIES,
            ),
            (
                &format!("{name}, quantity 100"),
                with(pdu.clone(), quantity_at, 100),
                LIES,
            ),
            (&format!("{name}, longer"), longer(pdu.clone()), LIES),
            (&format!("{name}, shorter"), shorter(pdu.clone()), LIES),
            (&format!("{name}, no count"), pdu[..count_at].to_vec(), LIES),
        ])?;
    }
    for (name, pdu) in [
        ("read", read(3, 0, 1)),
        ("single write", write_single(6, 0, 1)),
        ("coil", write_single(5, 0, 0)),
        ("mask", mask_write(0, 0, 0)),
        ("one file", vec![20, 7, 6, 0, 1, 0, 0, 0, 1]),
    ] {
        stage.each(&[
            (&format!("{name}, longer"), longer(pdu.clone()), LIES),
            (&format!("{name}, shorter"), shorter(pdu), LIES),
        ])?;
    }
    stage.finish()
}

/// A sub-request of function 20, or of 21 with records.
fn part(file: u16, record: u16, length: u16, records: &[u16]) -> Vec<u8> {
    let mut bytes = fields(6, &[file, record, length]);
    bytes.extend(records.iter().flat_map(|record| record.to_be_bytes()));
    bytes
}

fn files(function: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let parts = parts.concat();
    let count = u8::try_from(parts.len()).unwrap_or(0);
    [&[function, count], &parts[..]].concat()
}

#[test]
fn every_sub_request_of_files() -> Result<()> {
    let rule = "functions = [20]\nfiles = [4, \"10-12\"]\nrecords = \"100-199\"";
    let write = "functions = [21]\nfiles = [4]\nrecords = \"100-101\"";
    let mut stage = stage!(&plant("", &[rule, write]));
    let good = || part(4, 100, 1, &[]);
    let mut other_type = good();
    other_type[0] = 7;
    let mut odd = files(20, &[good()]);
    odd[1] = 6;
    odd.pop();
    let inflated = part(4, 100, 0x80, &[]);
    let hidden = [part(4, 100, 8, &[]), part(5, 100, 1, &[])].concat();
    let reads = |parts: &[Vec<u8>]| files(20, parts);
    let writes = |parts: &[Vec<u8>]| files(21, parts);
    stage.each(&[
        ("the first record", reads(&[good()]), Pass),
        ("all records", reads(&[part(12, 100, 100, &[])]), Pass),
        ("one more", reads(&[part(12, 100, 101, &[])]), ELSEWHERE),
        (
            "the record before",
            reads(&[part(4, 99, 1, &[])]),
            ELSEWHERE,
        ),
        (
            "around the end",
            reads(&[part(4, 65_535, 102, &[])]),
            ELSEWHERE,
        ),
        (
            "65,535 records",
            reads(&[part(4, 100, 65_535, &[])]),
            ELSEWHERE,
        ),
        ("another file", reads(&[part(5, 100, 1, &[])]), ELSEWHERE),
        ("file 0", reads(&[part(0, 100, 1, &[])]), ELSEWHERE),
        ("another type", reads(&[other_type]), ELSEWHERE),
        ("35 parts", reads(&vec![good(); 35]), Pass),
        (
            "the 35th elsewhere",
            reads(&[vec![good(); 34], vec![part(13, 100, 1, &[])]].concat()),
            ELSEWHERE,
        ),
        (
            "the first elsewhere",
            reads(&[part(9, 100, 1, &[]), good()]),
            ELSEWHERE,
        ),
        ("six bytes", odd, LIES),
        ("writes", writes(&[part(4, 100, 2, &[1, 2])]), Pass),
        (
            "writes twice",
            writes(&[part(4, 100, 1, &[1]), part(4, 101, 1, &[2])]),
            Pass,
        ),
        (
            "writes elsewhere",
            writes(&[part(10, 100, 1, &[1])]),
            ELSEWHERE,
        ),
        (
            "writes more records",
            writes(&[part(4, 101, 2, &[1, 2])]),
            ELSEWHERE,
        ),
        (
            "writes elsewhere at last",
            writes(&[part(4, 100, 1, &[1]), part(4, 102, 1, &[2])]),
            ELSEWHERE,
        ),
        (
            "says fewer than it holds",
            writes(&[part(4, 100, 0, &[1])]),
            ELSEWHERE,
        ),
        (
            "says more than it holds",
            writes(&[part(4, 100, 2, &[1])]),
            LIES,
        ),
        ("says far more", writes(&[inflated]), LIES),
        ("another part as records", writes(&[hidden]), ELSEWHERE),
    ])?;
    stage.finish()
}

#[test]
fn sub_functions_encapsulated_and_vendor_codes() -> Result<()> {
    let policy = plant(
        "",
        &[
            "functions = [8]\nsub_functions = [0, \"10-18\"]",
            "functions = [43]\nmei_types = [14]",
            "functions = [90]\nmax_length = 40",
            "functions = [91]",
        ],
    );
    let mut stage = stage!(&policy);
    let sub = Reset(Reason::SubFunctionNotAllowed);
    let mei = Reset(Reason::MeiTypeNotAllowed);
    let vendor = |code: u8, length: usize| [vec![code], vec![0; length - 2]].concat();
    let long_echo = [&diagnostics(0, 1)[..], &[0; 4]].concat();
    let long_clear = [&diagnostics(10, 1)[..], &[0; 4]].concat();
    stage.each(&[
        ("echo", diagnostics(0, 7), Pass),
        ("long echo", long_echo, Pass),
        ("odd echo", [&diagnostics(0, 7)[..], &[0]].concat(), LIES),
        ("echo of nothing", vec![8, 0, 0], LIES),
        ("restart", diagnostics(1, 0xff00), sub),
        ("listen only", diagnostics(4, 0), sub),
        ("before", diagnostics(9, 0), sub),
        ("first", diagnostics(10, 0), Pass),
        ("first, with more behind", long_clear, LIES),
        ("last", diagnostics(18, 0), Pass),
        ("behind", diagnostics(19, 0), sub),
        ("identification", encapsulated(14, &[1, 0]), Pass),
        (
            "identification, more behind",
            encapsulated(14, &[1, 0, 0]),
            LIES,
        ),
        ("identification, less", encapsulated(14, &[1]), LIES),
        ("no type", vec![43], LIES),
        ("CANopen", encapsulated(13, &[0; 8]), mei),
        ("another", encapsulated(255, &[]), mei),
        ("vendor, shortest", vendor(90, 2), Pass),
        ("vendor, longest", vendor(90, 40), Pass),
        (
            "vendor, longer",
            vendor(90, 41),
            Reset(Reason::ModbusLength),
        ),
        ("vendor, unlimited", vendor(91, 254), Pass),
        (
            "vendor, unlisted",
            vendor(92, 2),
            Reset(Reason::FunctionNotAllowed),
        ),
    ])?;
    stage.finish()
}
