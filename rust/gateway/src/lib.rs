//! The proxy's data plane: an HTTP server that asks one upstream or another and writes its answer as chat chunks.
//!
//! [`gateway::Gateway`] is all there is to hold: it is made of [`tables`], listens, and is asked for what only others
//! can do. Those are two queues: [`planner`] has the requests that somebody else must put into an upstream's words, and
//! the routes that somebody else answers; [`ledger`] has a row for each request that has ended. No thread of this crate
//! waits for either.
//!
//! A request's way: [`serve`] takes it from the socket, [`route`] says what it is, [`ask`] reads what it asks for,
//! [`keys`] whether it may ([`gate`] and [`commons`] where other nodes have a say in it), [`pursuit`] gets it an answer, [`body`] hands that out chunk by chunk, and [`account`] puts
//! down what it came to, once, however it ends.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking"))]

mod account;
mod ask;
mod body;
mod commons;
mod gate;
pub mod gateway;
mod keys;
pub mod ledger;
mod metrics;
mod page;
mod patient;
pub mod planner;
mod problem;
mod pursuit;
mod route;
mod serve;
pub mod state;
mod summary;
pub mod tables;
mod upstream;
