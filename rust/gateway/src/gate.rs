//! Lets the requests of a key in that has limits or a budget which several nodes share.

use std::sync::Arc;

use penstock_core::policy::limits::{Full, Limits};

use crate::commons::{Commons, Verdict};
use crate::keys::{Hold, Key};
use crate::problem::Problem;
use crate::state::Shared;

/// As [`Key::take`], for all nodes together. `id`: the request's.
pub(crate) async fn enter(
    shared: &Shared,
    commons: &Commons,
    key: &Arc<Key>,
    id: &str,
    tokens: u64,
) -> Result<Hold, Problem> {
    // Nothing to share, or nothing that the others could change.
    let Some(terms) = key.terms().filter(|terms| !never(&terms.limits)) else {
        return key.take(tokens, shared.now());
    };
    let pass = commons.pass(id, &key.id(), tokens);
    let answer = pass.ask(&terms).await;
    let now = shared.now();
    let Some((verdict, purse)) = answer else {
        return key.take_alone(pass, tokens, now, &commons.table);
    };
    key.hear(&terms, purse);
    match verdict {
        Verdict::In => Ok(key.take_with(pass, tokens, now)),
        Verdict::After(seconds) => Err(key.full(Full::Until(now + seconds), now)),
        Verdict::Slots => Err(key.full(Full::Slots, now)),
        Verdict::Spent => Err(key.overspent(purse)),
    }
}

fn never(limits: &Limits) -> bool {
    [limits.rpm, limits.tpm, limits.max_parallel.map(u64::from)].contains(&Some(0))
}
