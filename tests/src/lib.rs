//! The lab and the integration tests.
