//! The first process of a virtual machine: readies the kernel, runs one program, says how it ended.
//!
//! `cargo xtask kernels` puts it into the initial file system, beside `/guest/command` (one word a
//! line), `/guest/modules` and the program.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    process::Command,
};

use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

const FILE_SYSTEMS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("bpf", "/sys/fs/bpf"),
    ("tracefs", "/sys/kernel/tracing"),
];

fn main() {
    mount_all();
    load_modules();
    match run_command() {
        Ok(code) => println!("\nguest: ended with {code}"),
        Err(error) => println!("\nguest: cannot run the program: {error}"),
    }
    _ = io::stdout().flush();
    // The machine was told to end rather than to start again. The first process must not return.
    _ = reboot(RebootMode::RB_AUTOBOOT);
}

fn mount_all() {
    // Not a mount: the checkout, and what of it was carried here, may lie below it.
    _ = fs::create_dir_all("/tmp");
    for (kind, place) in FILE_SYSTEMS {
        let outcome = fs::create_dir_all(place).and_then(|()| {
            Ok(mount(
                Some(kind),
                place,
                Some(kind),
                MsFlags::empty(),
                None::<&str>,
            )?)
        });
        if let Err(error) = outcome {
            println!("guest: cannot mount {place}: {error}");
        }
    }
}

fn load_modules() {
    let Ok(entries) = fs::read_dir("/guest/modules") else {
        return;
    };
    let mut modules: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    modules.sort();
    for module in modules {
        let outcome = File::open(&module)
            .and_then(|file| Ok(finit_module(file, c"", ModuleInitFlags::empty())?));
        if let Err(error) = outcome {
            println!("guest: cannot load {}: {error}", module.display());
        }
    }
}

fn run_command() -> io::Result<i32> {
    let text = fs::read_to_string("/guest/command")?;
    let mut words = text.lines();
    let program = words.next().unwrap_or("/guest/program");
    let status = Command::new(program)
        .args(words)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("RUST_BACKTRACE", "1")
        .env("CI", "true")
        .current_dir("/")
        .status()?;
    Ok(status.code().unwrap_or(-1))
}
