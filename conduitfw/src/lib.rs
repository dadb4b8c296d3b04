//! The controller and the command line of conduitfw.

pub mod policy;
