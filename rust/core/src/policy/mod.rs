//! Which deployment to ask, when to ask again, and when to leave one alone: rules that a router and a gateway share.
//!
//! Pure: the time (seconds of any clock that does not go back) and chance (a number in [0, 1)) are arguments. A
//! [`pool::Pool`] holds all that is remembered of one group of deployments, in a few kilobytes for each and without
//! allocating as it goes on: whoever shares it between threads puts it behind one mutex, and holds that for
//! microseconds. A pool that takes the place of another goes on with what that one knows of deployments that stay.
//!
//! ```
//! use penstock_core::policy::pool::{Deployment, Outcome, Pool, Request, Strategy};
//!
//! let mut pool = Pool::new(Strategy::LeastBusy, vec![Deployment::default(), Deployment::default()]);
//! let now = 0.0;
//! let first = pool.lease(&Request::default(), now, 0.5).unwrap();
//! let second = pool.lease(&Request::default(), now, 0.5).unwrap();
//! assert_ne!(first.index(), second.index());
//! pool.settle(first, Outcome::Answered { seconds: Some(0.8) }, Some(120), now + 0.8);
//! pool.settle(second, Outcome::Failed, None, now + 1.0);
//! ```

pub mod cooldown;
pub mod latency;
pub mod limits;
pub mod pool;
pub mod retry;
mod window;
