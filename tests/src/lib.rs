//! The lab and what the integration tests build on.

pub mod agreement;
pub mod captures;
pub mod chance;
pub mod conversation;
pub mod conversations;
pub mod frames;
pub mod fuzzing;
pub mod honest;
pub mod lab;
pub mod load;
pub mod oracle;
pub mod peers;
pub mod proof;
pub mod replay;
pub mod scene;
pub mod twin;
