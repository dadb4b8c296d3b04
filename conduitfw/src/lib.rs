//! The controller and the command line of conduitfw.
//!
//! [`policy`] turns text into tables, [`dataplane`] puts them in force, [`events`] says what was
//! denied, [`control`] lets the command line ask; [`controller`] knows how these belong together
//! and [`daemon`] is the loop around it.

pub mod changes;
pub mod cli;
pub mod control;
pub mod controller;
pub mod daemon;
pub mod dataplane;
pub mod events;
pub mod expect;
pub mod explain;
mod gateway;
pub mod instance;
pub mod lock;
mod memory;
pub mod naming;
pub mod notify;
pub mod policy;
pub mod replay;
pub mod requester;
pub mod simulator;
pub mod state;
pub mod status;
