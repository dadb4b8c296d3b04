//! The controller and the command line of conduitfw.

fn main() {}
