//! The lab and what the integration tests build on.

pub mod frames;
pub mod lab;
pub mod load;
pub mod peers;
pub mod scene;
