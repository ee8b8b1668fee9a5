//! The worked examples of the user guides, as one proxy after the other would see them.
//!
//! The worlds live beside the checkout, or where `AMBIENTD_GUIDES` says; a checkout alone
//! does not have them, and then nothing is checked. Expectations are written from the claims
//! that go with each world; a test names the claims that it covers. Claims about requests are asked
//! in `e2e_guides`; those about the status of Gateways and routes, and all that rest on kinds this
//! version does not read, are not covered. Claims that begin "With", "Were" or "After" are edits of the world.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod binding;
mod east_west;
mod edits;
mod every;
mod policy;
mod route;
mod status;
mod traffic;
mod world;
