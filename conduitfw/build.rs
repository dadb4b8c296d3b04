//! Places the eBPF object beside the generated sources, so that the binary carries its data plane.

use std::{env, fs, path::PathBuf, process};

fn main() {
    println!("cargo::rerun-if-env-changed=CONDUITFW_EBPF_OBJECT");
    if let Err(sentence) = place_object() {
        println!("cargo::error={sentence}");
        process::exit(1);
    }
}

fn place_object() -> Result<(), String> {
    let object = match env::var_os("CONDUITFW_EBPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => workspace_object()?,
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).map_err(|error| {
        format!(
            "the eBPF object {} cannot be read ({error}): run `cargo xtask ebpf` first",
            object.display()
        )
    })?;
    let out = env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?;
    fs::write(PathBuf::from(out).join("conduitfw-ebpf"), bytes)
        .map_err(|error| format!("the eBPF object cannot be copied to OUT_DIR: {error}"))
}

/// Where `cargo xtask ebpf` leaves the object.
fn workspace_object() -> Result<PathBuf, String> {
    let package =
        env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo did not set CARGO_MANIFEST_DIR")?;
    Ok(PathBuf::from(package)
        .join("..")
        .join("target/bpf/bpfel-unknown-none/release/conduitfw-ebpf"))
}
