//! What the command line says when it cannot do what it was asked to, and how it ends.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use conduitfw_tests::lab::{Conduitfw, Lab, binary, skipped_without_root};
use conduitfw_tests::scene;
use conduitfw_tests::scene::dosing;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Why a controller did not start.
fn refusal(lab: &Lab, policy: &str) -> Result<String> {
    let started = Conduitfw::start(lab, policy);
    Ok(format!("{:#}", started.err().context("it started")?))
}

fn xdp_programs(lab: &Lab) -> Result<usize> {
    Ok(lab.gateway().run("ip link show")?.matches("xdp").count())
}

#[test]
fn a_missing_interface_attaches_nothing() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let policy = dosing(r#""reads""#);
    let lab = Lab::for_policy(&policy)?;
    let refused = refusal(&lab, &policy.replace("eth1", "eth7"))?;
    ensure!(refused.contains("exit status: 2"), "{refused}");
    ensure!(refused.contains("eth7"), "{refused}");
    assert_eq!(xdp_programs(&lab)?, 0, "half attached");
    Ok(())
}

#[test]
fn a_broken_policy_does_not_start() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let policy = dosing(r#""reads""#);
    let lab = Lab::for_policy(&policy)?;
    let refused = refusal(&lab, &policy.replace("units", "unitz"))?;
    ensure!(refused.contains("exit status: 1"), "{refused}");
    ensure!(refused.contains("did you mean"), "{refused}");
    assert_eq!(xdp_programs(&lab)?, 0, "half attached");
    Ok(())
}

#[test]
fn nobody_is_told_to_be_root() -> Result<()> {
    if skipped_without_root() {
        return Ok(());
    }
    let directory = std::env::temp_dir().join(format!("cfw-{}-nobody", std::process::id()));
    fs::create_dir_all(&directory)?;
    // Where this account may read.
    let (program, policy) = (directory.join("conduitfw"), directory.join("policy.toml"));
    fs::copy(binary()?, &program)?;
    fs::write(&policy, dosing(r#""reads""#))?;
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .arg("run")
        .args(["--instance", "cfw-nobody", "--policy"])
        .arg(&policy)
        .output();
    let checked = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .arg("check")
        .arg(&policy)
        .output();
    fs::remove_dir_all(&directory)?;
    let output = output?;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    ensure!(said(&output).contains("root"), "{}", said(&output));
    assert_eq!(checked?.status.code(), Some(0), "check needs no root");
    Ok(())
}

#[test]
fn a_program_of_someone_else_stays() -> Result<()> {
    let policy = dosing(r#""reads""#);
    let other = scene!(&policy);
    // The same interfaces, by a link: another instance's.
    let refused = refusal(&other.lab, &policy)?;
    ensure!(refused.contains("exit status: 2"), "{refused}");
    ensure!(
        refused.contains("eth0") && refused.contains("already"),
        "{refused}"
    );
    other.status()?;
    // The old way, without a link, on the second interface only.
    let lab = Lab::for_policy(&policy)?;
    let program = other.conduitfw.files().pins().join("program");
    lab.gateway().run(&format!(
        "ip link set dev eth1 xdp pinned {}",
        program.display()
    ))?;
    let before = xdp_programs(&lab)?;
    let refused = refusal(&lab, &policy)?;
    ensure!(refused.contains("exit status: 2"), "{refused}");
    ensure!(
        refused.contains("eth1") && refused.contains("already"),
        "{refused}"
    );
    assert_eq!(xdp_programs(&lab)?, before, "theirs alone");
    Ok(())
}

#[test]
fn a_second_controller_of_an_instance_is_refused() -> Result<()> {
    let scene = scene!(&dosing(r#""reads""#));
    let files = scene.conduitfw.files();
    let output = files
        .command("run")
        .arg("--policy")
        .arg(files.policy())
        .output()?;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    scene.status()?;
    Ok(())
}

#[test]
fn verbs_that_need_a_controller_say_so() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("cfw-{}-none", std::process::id()));
    for verb in ["reload", "events"] {
        let mut command = Command::new(binary()?);
        let command = command
            .arg(verb)
            .args(["--instance", "cfw-none", "--run-dir"]);
        let output = command.arg(&directory).output()?;
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        ensure!(said(&output).contains("conduitfw run"), "{}", said(&output));
    }
    Ok(())
}

#[test]
fn a_wrong_word_is_a_usage_error() -> Result<()> {
    for words in [
        &["runn"][..],
        &["run"],
        &["run", "--polcy", "x"],
        &["check"],
    ] {
        let output = Command::new(binary()?).args(words).output()?;
        assert_eq!(
            output.status.code(),
            Some(2),
            "{words:?}: {}",
            said(&output)
        );
    }
    Ok(())
}

#[test]
fn check_tells_all_problems_at_once_with_their_places() -> Result<()> {
    let broken = dosing(r#""reeds""#)
        .replace("[\"hmi-1\"]", "[\"hmi-9\"]")
        .replace("units", "unitz");
    let file = std::env::temp_dir().join(format!("cfw-{}-broken.toml", std::process::id()));
    fs::write(&file, &broken)?;
    let people = Command::new(binary()?).arg("check").arg(&file).output()?;
    let machines = Command::new(binary()?)
        .arg("check")
        .arg("--json")
        .arg(&file)
        .output()?;
    let missing = Command::new(binary()?)
        .args(["check", "/nowhere/policy.toml"])
        .output()?;
    fs::remove_file(&file)?;
    assert_eq!(people.status.code(), Some(1), "{}", said(&people));
    for hint in ["reads", "hmi-1", "units", "^^^", "broken.toml:"] {
        ensure!(
            said(&people).contains(hint),
            "no {hint} in: {}",
            said(&people)
        );
    }
    assert_eq!(machines.status.code(), Some(1), "{}", said(&machines));
    let answer: serde_json::Value = serde_json::from_slice(&machines.stdout)?;
    assert_eq!(answer["ok"], false);
    assert_eq!(missing.status.code(), Some(2), "{}", said(&missing));
    Ok(())
}
