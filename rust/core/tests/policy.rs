//! Retry, back-off, pick, limits, cooldown: with the time and chance that each test sets.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "a test stops where it fails"
)]

use penstock_core::error::Class;
use penstock_core::policy::cooldown::Cooldown;
use penstock_core::policy::limits::Limits;
use penstock_core::policy::pool::{Cause, Deployment, Health, Lease, Outcome, Pool, Refusal, Request, Strategy};
use penstock_core::policy::retry::{Budget, FIRST_PAUSE, Failure};
use proptest::prelude::*;

const WELL: Outcome = Outcome::Answered { seconds: Some(1.0) };

fn deployments(count: usize) -> Vec<Deployment> {
    vec![Deployment::default(); count]
}

fn limited(limits: Limits) -> Pool {
    Pool::new(Strategy::Shuffle, vec![Deployment { limits, ..Deployment::default() }])
}

fn ask(pool: &mut Pool, now: f64) -> Result<Lease, Refusal> {
    pool.lease(&Request::default(), now, 0.5)
}

/// A request that is over at once.
fn run(pool: &mut Pool, outcome: Outcome, now: f64) -> usize {
    let lease = ask(pool, now).unwrap();
    let index = lease.index();
    pool.settle(lease, outcome, None, now);
    index
}

/// Even steps through [0, 1): what chance is on average.
fn chances(count: u32) -> impl Iterator<Item = f64> {
    (0..count).map(move |step| (f64::from(step) + 0.5) / f64::from(count))
}

mod retries {
    use super::*;

    fn failure(class: Class) -> Failure {
        Failure { class: Some(class), ..Failure::default() }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else() {
        use Class::{BadGateway, Conflict, Connection, InternalServer, RateLimit, ServiceUnavailable, Timeout};
        let again = [Connection, Timeout, Conflict, RateLimit, InternalServer, BadGateway, ServiceUnavailable];
        for class in Class::ALL {
            assert_eq!(failure(class).retryable(), again.contains(&class), "{class:?}");
        }
        assert!(!Failure::default().retryable());
    }

    #[test]
    fn the_provider_knows_better() {
        assert!(Failure { advice: Some(true), ..failure(Class::BadRequest) }.retryable());
        assert!(!Failure { advice: Some(false), ..failure(Class::InternalServer) }.retryable());
    }

    #[test]
    fn no_waiting_brings_credit() {
        let spent = Failure { code: Some("insufficient_quota".into()), ..failure(Class::RateLimit) };
        assert!(!spent.retryable());
        assert!(spent.falls_back());
        assert!(!Failure { kind: Some("insufficient_quota".into()), ..failure(Class::RateLimit) }.retryable());
    }

    #[test]
    fn another_model_may_have_what_this_one_lacks() {
        for class in [Class::Authentication, Class::PermissionDenied, Class::NotFound] {
            assert!(failure(class).elsewhere() && failure(class).falls_back() && !failure(class).retryable());
        }
        let long = failure(Class::ContextWindowExceeded);
        assert!(long.falls_back() && !long.elsewhere());
        for class in [Class::BadRequest, Class::ContentPolicyViolation, Class::UnprocessableEntity] {
            assert!(!failure(class).falls_back(), "{class:?}");
        }
    }

    #[test]
    fn pauses_double_to_a_limit() {
        let pause = |retries| failure(Class::InternalServer).pause(retries, u32::MAX, 0.0, FIRST_PAUSE).unwrap();
        assert_eq!([0, 1, 2, 3, 4, 5, 4_000_000_000].map(pause), [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]);
    }

    #[test]
    fn the_provider_says_how_long_up_to_a_minute() {
        let pause =
            |wait| Failure { retry_after: Some(wait), ..failure(Class::RateLimit) }.pause(0, 2, 0.0, FIRST_PAUSE);
        assert_eq!([7.5, 60.0, 60.1, 0.0, -1.0].map(pause), [Some(7.5), Some(60.0), None, Some(0.25), Some(0.25)]);
    }

    proptest! {
           #[test]
           fn a_pause_is_never_longer_than_allowed(retries in 0_u32..200, most in 0_u32..200, chance in 0.0..1.0_f64) {
               match failure(Class::Connection).pause(retries, most, chance, FIRST_PAUSE) {
                   None => prop_assert!(retries >= most),
                   Some(pause) => prop_assert!((0.25..=8.0).contains(&pause) && retries < most),
               }
           }

           /// No retry is granted that would be one too many for the minute before it, whenever requests and failures come.
           #[test]
           fn retries_are_a_part_of_the_requests(steps in prop::collection::vec((0.0..3.0_f64, 0_usize..4, 0_usize..6), 1..200)) {
               let (ratio, reserve) = (0.2, 3.0);
               let mut budget = Budget::new(ratio, reserve);
               let mut log: Vec<(f64, usize, usize)> = Vec::new();
               let mut now = 0.0;
               for (pause, requests, wanted) in steps {
                   now += pause;
                   for _ in 0..requests {
    budget.request(now);
    }
                   let granted = (0..wanted).filter(|_| budget.retry(now)).count();
                   log.push((now, requests, granted));
                   let within = |span: f64| log.iter().filter(move |(at, ..)| *at > now - span);
                   let retries: usize = within(60.0).map(|(.., granted)| granted).sum();
                   let requests: usize = within(62.0).map(|(_, requests, _)| requests).sum();
                   prop_assert!(granted == 0 || retries as f64 <= ratio * requests as f64 + reserve);
               }
           }
       }

    #[test]
    fn another_part_holds_for_what_was_counted_too() {
        let mut budget = Budget::new(0.0, 1.0);
        for _ in 0..10 {
            budget.request(0.0);
        }
        assert_eq!((0..5).filter(|_| budget.retry(0.0)).count(), 1);
        budget.limit(0.3);
        assert_eq!((0..5).filter(|_| budget.retry(0.0)).count(), 3);
        budget.limit(0.0);
        assert!(!budget.retry(0.0));
    }

    #[test]
    fn who_asks_seldom_may_always_try_again() {
        let mut budget = Budget::new(0.2, 3.0);
        for minute in 0..100 {
            let now = f64::from(minute) * 62.0;
            budget.request(now);
            assert!(budget.retry(now) && budget.retry(now));
        }
    }
}

mod picks {
    use super::*;

    fn shares(pool: &Pool, count: u32, request: &Request<'_>) -> Vec<usize> {
        let mut shares = vec![0; pool.len()];
        for chance in chances(count) {
            shares[pool.clone().lease(request, 0.0, chance).unwrap().index()] += 1;
        }
        shares
    }

    #[test]
    fn by_weight() {
        let weighted = |weight| Deployment { weight, ..Deployment::default() };
        let pool = Pool::new(Strategy::Shuffle, [9.0, 1.0, 0.0].map(weighted).to_vec());
        assert_eq!(shares(&pool, 1000, &Request::default()), [900, 100, 0]);
        let even = Pool::new(Strategy::Shuffle, [0.0, 0.0].map(weighted).to_vec());
        assert_eq!(shares(&even, 1000, &Request::default()), [500, 500]);
    }

    #[test]
    fn chance_at_its_edges_still_picks() {
        let weighted = |weight| Deployment { weight, ..Deployment::default() };
        let mut pool = Pool::new(Strategy::Shuffle, [0.0, 0.1, 0.0].map(weighted).to_vec());
        for chance in [0.0, 1.0 - f64::EPSILON, 1.0] {
            assert_eq!(pool.lease(&Request::default(), 0.0, chance).unwrap().index(), 1);
        }
    }

    #[test]
    fn the_least_busy() {
        let mut pool = Pool::new(Strategy::LeastBusy, deployments(3));
        let mut leases: Vec<Lease> = (0..6).map(|_| ask(&mut pool, 0.0).unwrap()).collect();
        let mut taken: Vec<usize> = leases.iter().map(Lease::index).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 0, 1, 1, 2, 2]);
        let freed = leases.remove(3);
        let index = freed.index();
        pool.release(freed);
        assert_eq!(ask(&mut pool, 0.0).unwrap().index(), index);
    }

    #[test]
    fn the_cheapest_whose_price_is_known() {
        let priced = |price| Deployment { price, ..Deployment::default() };
        let mut pool = Pool::new(Strategy::LowestCost, [None, Some(3e-6), Some(2e-6)].map(priced).to_vec());
        assert_eq!(ask(&mut pool, 0.0).unwrap().index(), 2);
        let cheap = Request { except: &[2], ..Request::default() };
        assert_eq!(pool.lease(&cheap, 0.0, 0.5).unwrap().index(), 1);
        let dear = Request { except: &[1, 2], ..Request::default() };
        assert_eq!(pool.lease(&dear, 0.0, 0.5).unwrap().index(), 0);
    }

    #[test]
    fn the_one_that_has_used_least_of_its_tokens() {
        let mut pool = Pool::new(
            Strategy::LowestUsage,
            [100, 1000]
                .map(|tpm| Deployment {
                    limits: Limits { tpm: Some(tpm), ..Limits::default() },
                    ..Deployment::default()
                })
                .to_vec(),
        );
        let request = Request { tokens: 30, ..Request::default() };
        let taken: Vec<usize> = (0..8).map(|_| pool.lease(&request, 0.0, 0.1).unwrap().index()).collect();
        assert_eq!(taken, [0, 1, 1, 1, 1, 1, 1, 1]);
    }

    /// Two deployments, one ten times slower: nearly all goes to the fast one, the slow one is looked at now and then,
    /// and when they change places, so do the requests.
    #[test]
    fn the_quickest_to_answer() {
        let mut pool = Pool::new(Strategy::LowestLatency, deployments(2));
        let mut now = 0.0;
        for (seconds, fast) in [([0.1, 1.0], 0), ([1.0, 0.1], 1)] {
            let mut asked = [0, 0];
            for step in 0..2000 {
                let lease = ask(&mut pool, now).unwrap();
                let index = lease.index();
                if step >= 1000 {
                    asked[index] += 1;
                }
                now += seconds[index];
                pool.settle(lease, Outcome::Answered { seconds: Some(seconds[index]) }, None, now);
            }
            assert!(asked[fast] > 970 && asked[1 - fast] >= 1, "{asked:?}");
        }
    }

    #[test]
    fn a_burst_is_spread_though_one_is_quicker() {
        let mut pool = Pool::new(Strategy::LowestLatency, deployments(2));
        for seconds in [0.2, 0.1] {
            let lease = ask(&mut pool, 0.0).unwrap();
            pool.settle(lease, Outcome::Answered { seconds: Some(seconds) }, None, 0.0);
        }
        let mut asked = [0; 2];
        let leases: Vec<Lease> = (0..30).map(|_| ask(&mut pool, 0.0).unwrap()).collect();
        for lease in &leases {
            asked[lease.index()] += 1;
        }
        asked.sort_unstable();
        assert_eq!(asked, [10, 20]);
    }

    #[test]
    fn streams_and_whole_responses_are_timed_apart() {
        let mut pool = Pool::new(Strategy::LowestLatency, deployments(1));
        let lease = pool.lease(&Request { stream: true, ..Request::default() }, 0.0, 0.5).unwrap();
        pool.began(&lease, 0.3, 0.3);
        pool.settle(lease, Outcome::Answered { seconds: None }, None, 9.0);
        run(&mut pool, Outcome::Answered { seconds: Some(4.0) }, 10.0);
        let status = pool.status(10.0)[0];
        assert_eq!((status.first_token, status.whole), (Some(0.3), Some(4.0)));
    }

    #[test]
    fn the_next_order_only_when_the_first_cannot() {
        let ordered = |(order, max_parallel)| Deployment {
            order,
            limits: Limits { max_parallel, ..Limits::default() },
            ..Deployment::default()
        };
        let mut pool = Pool::new(Strategy::Shuffle, [(2, None), (1, Some(1)), (1, Some(1))].map(ordered).to_vec());
        let mut taken: Vec<usize> =
            chances(4).map(|chance| pool.lease(&Request::default(), 0.0, chance).unwrap().index()).collect();
        taken[..2].sort_unstable();
        assert_eq!(taken, [1, 2, 0, 0]);
    }

    #[test]
    fn tags() {
        let tagged = |tags: &[&str]| Deployment {
            tags: tags.iter().map(ToString::to_string).collect(),
            ..Deployment::default()
        };
        let pool = Pool::new(
            Strategy::Shuffle,
            vec![tagged(&["free"]), tagged(&["paid", "eu"]), tagged(&["default"]), tagged(&[])],
        );
        let at = |pool: &Pool, tags: &[&str], all_tags| -> Result<Vec<usize>, Refusal> {
            let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
            let request = Request { tags: &tags, all_tags, ..Request::default() };
            let mut found: Vec<usize> = Vec::new();
            for chance in chances(100) {
                found.push(pool.clone().lease(&request, 0.0, chance)?.index());
            }
            found.dedup();
            Ok(found)
        };
        assert_eq!(at(&pool, &["free"], false), Ok(vec![0]));
        assert_eq!(at(&pool, &["free", "eu"], false), Ok(vec![0, 1]));
        assert_eq!(at(&pool, &["paid", "eu"], true), Ok(vec![1]));
        assert_eq!(at(&pool, &["free", "eu"], true), Ok(vec![2]));
        assert_eq!(at(&pool, &["unknown"], false), Ok(vec![2]));
        assert_eq!(at(&pool, &[], false), Ok(vec![2]));
        let without = Pool::new(Strategy::Shuffle, vec![tagged(&["free"]), tagged(&[])]);
        assert_eq!(at(&without, &[], false), Ok(vec![0, 1]));
        assert_eq!(at(&without, &["paid"], false).unwrap_err().cause, Cause::Unmatched);
    }

    #[test]
    fn a_prompt_goes_where_it_fits_or_else_anywhere() {
        let windowed = |max_prompt| Deployment { max_prompt, ..Deployment::default() };
        let pool = Pool::new(Strategy::Shuffle, [Some(4_000), Some(16_000)].map(windowed).to_vec());
        assert_eq!(shares(&pool, 100, &Request { prompt: 4_001, ..Request::default() }), [0, 100]);
        assert_eq!(shares(&pool, 100, &Request { prompt: 4_000, ..Request::default() }), [50, 50]);
        assert_eq!(shares(&pool, 100, &Request { prompt: 16_001, ..Request::default() }), [50, 50]);
    }
}

mod limits {
    use super::*;

    #[test]
    fn requests_a_minute() {
        let mut pool = limited(Limits { rpm: Some(2), ..Limits::default() });
        run(&mut pool, WELL, 10.5);
        run(&mut pool, WELL, 20.0);
        let refusal = ask(&mut pool, 30.0).unwrap_err();
        assert_eq!(refusal, Refusal { cause: Cause::Limited, after: Some(41.0), busy: false });
        assert!(ask(&mut pool, 70.9).is_err());
        assert!(ask(&mut pool, 71.0).is_ok());
    }

    #[test]
    fn tokens_are_estimated_and_put_right() {
        let mut pool = limited(Limits { tpm: Some(100), ..Limits::default() });
        let request = Request { tokens: 60, ..Request::default() };
        let first = pool.lease(&request, 0.0, 0.5).unwrap();
        assert_eq!(pool.lease(&request, 1.0, 0.5).unwrap_err().after, Some(60.0));
        pool.settle(first, WELL, Some(20), 2.0);
        assert_eq!(pool.status(2.0)[0].tpm, 20);
        let second = pool.lease(&request, 3.0, 0.5).unwrap();
        pool.settle(second, WELL, Some(90), 4.0);
        assert_eq!(pool.status(4.0)[0].tpm, 110);
        assert_eq!(pool.lease(&request, 5.0, 0.5).unwrap_err().after, Some(59.0));
    }

    #[test]
    fn without_a_word_the_estimate_stands() {
        let mut pool = limited(Limits { tpm: Some(100), ..Limits::default() });
        let lease = pool.lease(&Request { tokens: 60, ..Request::default() }, 0.0, 0.5).unwrap();
        pool.settle(lease, Outcome::Left, None, 1.0);
        assert_eq!((pool.status(1.0)[0].tpm, pool.status(1.0)[0].tokens), (60, 0));
    }

    #[test]
    fn tokens_of_a_stream_longer_than_a_minute_count_when_they_are_known() {
        let mut pool = limited(Limits { tpm: Some(100), ..Limits::default() });
        let lease = pool.lease(&Request { tokens: 10, ..Request::default() }, 0.0, 0.5).unwrap();
        assert_eq!(pool.status(100.0)[0].tpm, 0);
        pool.settle(lease, WELL, Some(80), 100.0);
        assert_eq!(pool.status(100.0)[0].tpm, 70);
        let lease = pool.lease(&Request { tokens: 10, ..Request::default() }, 100.0, 0.5).unwrap();
        pool.settle(lease, WELL, Some(0), 200.0);
        assert_eq!(pool.status(200.0)[0].tpm, 0);
    }

    #[test]
    fn what_is_larger_than_the_limit_goes_alone() {
        let mut pool = limited(Limits { tpm: Some(100), ..Limits::default() });
        let huge = Request { tokens: 500, ..Request::default() };
        let lease = pool.lease(&huge, 0.0, 0.5).unwrap();
        pool.settle(lease, WELL, Some(500), 1.0);
        assert!(pool.lease(&huge, 60.9, 0.5).is_err());
        assert!(pool.lease(&huge, 61.0, 0.5).is_ok());
    }

    #[test]
    fn requests_at_once() {
        let mut pool = limited(Limits { max_parallel: Some(2), ..Limits::default() });
        let first = ask(&mut pool, 0.0).unwrap();
        let _second = ask(&mut pool, 0.0).unwrap();
        assert_eq!(ask(&mut pool, 0.0).unwrap_err(), Refusal { cause: Cause::Limited, after: None, busy: true });
        pool.release(first);
        assert!(ask(&mut pool, 0.0).is_ok());
    }

    #[test]
    fn a_limit_of_nothing_lets_nothing_in() {
        for limits in [
            Limits { rpm: Some(0), ..Limits::default() },
            Limits { tpm: Some(0), ..Limits::default() },
            Limits { max_parallel: Some(0), ..Limits::default() },
        ] {
            let never = Refusal { cause: Cause::Limited, after: None, busy: false };
            assert_eq!(ask(&mut limited(limits), 0.0).unwrap_err(), never);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask { tokens: u64 },
        End { which: usize, tokens: Option<u64> },
        Wait(f64),
    }

    fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
        use proptest::strategy::Strategy as _;
        let step = prop_oneof![
            4 => (0_u64..50).prop_map(|tokens| Step::Ask { tokens }),
            3 => (any::<usize>(), proptest::option::of(0_u64..80)).prop_map(|(which, tokens)| Step::End { which, tokens }),
            2 => (0.0..20.0_f64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
              /// Whatever comes: no 60 seconds have more requests than allowed, no moment more at once; what is refused is
              /// let in when it was told to come; in the end nothing is in flight.
              #[test]
              fn are_kept(steps in steps(), rpm in 1_u64..8, most in 1_u32..6) {
                  let limits = Limits { rpm: Some(rpm), tpm: None, max_parallel: Some(most) };
                  let mut pool = limited(limits);
                  let (mut now, mut taken, mut leases) = (0.0, Vec::new(), Vec::new());
                  for step in steps {
                      match step {
                          Step::Wait(seconds) => now += seconds,
                          Step::End { which, tokens } => {
                              if !leases.is_empty() {
                                  let lease = leases.swap_remove(which % leases.len());
                                  pool.settle(lease, WELL, tokens, now);
                              }
                          }
                          Step::Ask { tokens } => match pool.lease(&Request { tokens, ..Request::default() }, now, 0.5) {
                              Ok(lease) => {
                                  taken.push(now);
                                  leases.push(lease);
                              }
                              Err(refusal) if refusal.busy => prop_assert_eq!(leases.len(), most as usize),
                              Err(refusal) => {
                                  let after = refusal.after.unwrap();
                                  prop_assert!(after > 0.0 && after <= 61.0);
                                  let later = pool.clone().lease(&Request { tokens, ..Request::default() }, now + after, 0.5);
       prop_assert!(later.is_ok());
                              }
                          },
                      }
                      prop_assert!(leases.len() <= most as usize);
                      let minute = taken.iter().filter(|at| **at > now - 60.0).count();
                      prop_assert!(minute as u64 <= rpm);
                      prop_assert_eq!(pool.status(now)[0].in_flight as usize, leases.len());
                  }
                  for lease in leases {
    pool.release(lease);
    }
                  prop_assert_eq!(pool.status(now)[0].in_flight, 0);
              }

              /// Where estimates are right, no 60 seconds have more tokens than allowed.
              #[test]
              fn of_tokens_are_kept(steps in steps(), tpm in 50_u64..200) {
                  let mut pool = limited(Limits { tpm: Some(tpm), ..Limits::default() });
                  let (mut now, mut taken) = (0.0, Vec::new());
                  for step in steps {
                      match step {
                          Step::Wait(seconds) => now += seconds,
                          Step::End { .. } => {}
                          Step::Ask { tokens } => {
                              if let Ok(lease) = pool.lease(&Request { tokens, ..Request::default() }, now, 0.5) {
                                  taken.push((now, tokens));
                                  pool.settle(lease, WELL, Some(tokens), now);
                              }
                          }
                      }
                      let minute: u64 = taken.iter().filter(|(at, _)| *at > now - 60.0).map(|(_, tokens)| tokens).sum();
                      prop_assert!(minute <= tpm);
                  }
              }
          }
}

mod successors {
    use super::*;

    /// One that has another's place in the list, and one that is new.
    fn successor(before: &Pool, deployments: Vec<Deployment>) -> Pool {
        let mut pool = Pool::new(Strategy::Shuffle, deployments);
        pool.go_on(1, before, 0);
        pool
    }

    #[test]
    fn go_on_with_what_was_counted_and_what_is_under_way() {
        let limits = Limits { rpm: Some(2), max_parallel: Some(1), ..Limits::default() };
        let limited = Deployment { limits, ..Deployment::default() };
        let mut old = Pool::new(Strategy::Shuffle, vec![limited.clone()]);
        let under_way = ask(&mut old, 0.0).unwrap();
        let mut new = successor(&old, vec![Deployment::default(), limited]);
        let request = Request { except: &[0], ..Request::default() };
        assert!(new.lease(&request, 1.0, 0.5).unwrap_err().busy);
        old.settle(under_way, WELL, Some(9), 1.0);
        assert_eq!(new.status(1.0)[1].tpm, 9);
        let lease = new.lease(&request, 1.0, 0.5).unwrap();
        new.settle(lease, WELL, None, 2.0);
        let refusal = new.lease(&request, 2.0, 0.5).unwrap_err();
        assert_eq!((refusal.cause, refusal.busy), (Cause::Limited, false));
        assert_eq!(new.status(2.0).iter().map(|status| status.rpm).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn hear_of_a_probe_that_was_sent_before_them() {
        let mut old = Pool::new(Strategy::Shuffle, deployments(1));
        for _ in 0..4 {
            run(&mut old, Outcome::Failed, 0.0);
        }
        let probe = ask(&mut old, 5.0).unwrap();
        let mut new = successor(&old, deployments(2));
        assert_eq!(new.status(5.0)[1].health, Health::Probing);
        old.settle(probe, WELL, None, 6.0);
        assert_eq!(new.status(6.0)[1].health, Health::Up);
    }

    #[test]
    fn a_clone_is_no_successor() {
        let mut pool = Pool::new(Strategy::Shuffle, deployments(1));
        let mut clone = pool.clone();
        run(&mut pool, WELL, 0.0);
        assert_eq!(clone.status(0.0)[0].answered, 0);
    }
}

mod cooldowns {
    use super::*;

    fn pool(count: usize) -> Pool {
        Pool::new(Strategy::LeastBusy, deployments(count))
    }

    fn health(pool: &mut Pool, now: f64) -> Vec<Health> {
        pool.status(now).iter().map(|status| status.health).collect()
    }

    #[test]
    fn after_more_failures_in_a_row_than_allowed() {
        let mut pool = pool(1);
        for _ in 0..3 {
            run(&mut pool, Outcome::Failed, 0.0);
        }
        run(&mut pool, WELL, 0.0);
        for _ in 0..4 {
            run(&mut pool, Outcome::Failed, 0.0);
        }
        let refusal = ask(&mut pool, 1.0).unwrap_err();
        assert_eq!(refusal, Refusal { cause: Cause::Failing, after: Some(4.0), busy: false });
        assert_eq!(pool.status(1.0)[0].cooling, 4.0);
    }

    #[test]
    fn when_most_requests_fail_though_never_in_a_row() {
        let mut pool = pool(1);
        let mut asked = 0;
        for outcome in [WELL, Outcome::Failed, Outcome::Failed].into_iter().cycle().take(30) {
            if let Ok(lease) = ask(&mut pool, 0.0) {
                pool.settle(lease, outcome, None, 0.0);
                asked += 1;
            }
        }
        assert_eq!(asked, 11);
    }

    #[test]
    fn half_of_them_may_fail() {
        let mut pool = pool(1);
        for outcome in [WELL, Outcome::Failed].into_iter().cycle().take(1000) {
            run(&mut pool, outcome, 0.0);
        }
    }

    #[test]
    fn one_request_goes_ahead_to_see() {
        let mut pool = pool(1);
        for _ in 0..4 {
            run(&mut pool, Outcome::Failed, 0.0);
        }
        let probe = ask(&mut pool, 5.0).unwrap();
        assert_eq!(health(&mut pool, 5.0), [Health::Probing]);
        assert_eq!(ask(&mut pool, 6.0).unwrap_err(), Refusal { cause: Cause::Failing, after: None, busy: true });
        pool.settle(probe, Outcome::Failed, None, 7.0);
        assert_eq!(ask(&mut pool, 8.0).unwrap_err().after, Some(4.0));
        let probe = ask(&mut pool, 12.0).unwrap();
        pool.settle(probe, WELL, None, 13.0);
        assert_eq!(health(&mut pool, 13.0), [Health::Up]);
        for _ in 0..3 {
            run(&mut pool, Outcome::Failed, 13.0);
        }
        assert_eq!(health(&mut pool, 13.0), [Health::Up]);
    }

    #[test]
    fn a_stream_that_has_begun_is_enough_to_see() {
        let mut pool = pool(1);
        for _ in 0..4 {
            run(&mut pool, Outcome::Failed, 0.0);
        }
        let probe = ask(&mut pool, 5.0).unwrap();
        pool.began(&probe, 0.3, 5.3);
        assert!(ask(&mut pool, 5.3).is_ok());
    }

    #[test]
    fn a_probe_that_is_given_up_makes_room_for_the_next() {
        let mut pool = pool(1);
        for _ in 0..4 {
            run(&mut pool, Outcome::Failed, 0.0);
        }
        let probe = ask(&mut pool, 5.0).unwrap();
        pool.release(probe);
        assert!(ask(&mut pool, 5.0).is_ok());
    }

    #[test]
    fn what_was_asked_before_says_nothing_about_now() {
        let mut pool = pool(1);
        let late: Vec<Lease> = (0..3).map(|_| ask(&mut pool, 0.0).unwrap()).collect();
        for _ in 0..4 {
            run(&mut pool, Outcome::Failed, 0.0);
        }
        let mut late = late.into_iter();
        pool.settle(late.next().unwrap(), WELL, None, 1.0);
        assert_eq!(health(&mut pool, 1.0), [Health::Cooling]);
        let probe = ask(&mut pool, 5.0).unwrap();
        pool.settle(late.next().unwrap(), Outcome::Failed, None, 5.5);
        assert_eq!(health(&mut pool, 5.5), [Health::Probing]);
        pool.settle(probe, WELL, None, 6.0);
        pool.settle(late.next().unwrap(), Outcome::Failed, None, 6.0);
        assert_eq!(health(&mut pool, 6.0), [Health::Up]);
    }

    #[test]
    fn too_many_requests_at_once_and_for_as_long_as_told() {
        let mut pool = pool(2);
        let first = run(&mut pool, Outcome::Limited { retry_after: Some(20.0) }, 0.0);
        assert_eq!(pool.status(0.0)[first].cooling, 20.0);
        let second = run(&mut pool, Outcome::Limited { retry_after: None }, 0.0);
        assert_ne!(first, second);
        assert_eq!(ask(&mut pool, 1.0).unwrap_err(), Refusal { cause: Cause::Limited, after: Some(4.0), busy: false });
    }

    #[test]
    fn a_longer_wait_counts_though_asked_before() {
        let mut pool = pool(2);
        let early = ask(&mut pool, 0.0).unwrap();
        let index = early.index();
        let other = [1 - index];
        let request = Request { except: &other, ..Request::default() };
        let lease = pool.lease(&request, 0.0, 0.5).unwrap();
        pool.settle(lease, Outcome::Limited { retry_after: Some(2.0) }, None, 0.0);
        pool.settle(early, Outcome::Limited { retry_after: Some(30.0) }, None, 1.0);
        assert_eq!(pool.status(1.0)[index].cooling, 30.0);
    }

    #[test]
    fn the_only_one_is_not_left_alone_for_what_it_did_not_say() {
        let mut pool = pool(1);
        for _ in 0..20 {
            run(&mut pool, Outcome::Limited { retry_after: None }, 0.0);
            run(&mut pool, Outcome::Barred, 0.0);
        }
        run(&mut pool, Outcome::Limited { retry_after: Some(3.0) }, 0.0);
        assert!(ask(&mut pool, 1.0).is_err());
    }

    #[test]
    fn a_wrong_key_is_not_tried_again_while_there_is_another() {
        let mut pool = pool(2);
        let wrong = run(&mut pool, Outcome::Barred, 0.0);
        for now in [1.0, 2.0, 4.9] {
            assert_ne!(run(&mut pool, WELL, now), wrong);
        }
    }

    #[test]
    fn never_if_not_wanted() {
        let cooldown = Cooldown { allowed_fails: None, seconds: 5.0 };
        let mut pool = Pool::new(Strategy::Shuffle, vec![Deployment { cooldown, ..Deployment::default() }; 2]);
        for outcome in
            [Outcome::Failed, Outcome::Barred, Outcome::Limited { retry_after: Some(9.0) }].into_iter().cycle().take(90)
        {
            run(&mut pool, outcome, 0.0);
        }
    }

    #[test]
    fn what_the_caller_did_wrong_is_not_the_deployments_fault() {
        for class in [Class::BadRequest, Class::ContextWindowExceeded, Class::ContentPolicyViolation, Class::Conflict] {
            assert_eq!(Outcome::of(Some(class), None), Outcome::Answered { seconds: None }, "{class:?}");
        }
        assert_eq!(Outcome::of(Some(Class::NotFound), None), Outcome::Barred);
        assert_eq!(Outcome::of(Some(Class::PaymentRequired), None), Outcome::Barred);
        assert_eq!(Outcome::of(Some(Class::RateLimit), Some(2.0)), Outcome::Limited { retry_after: Some(2.0) });
        assert_eq!(Outcome::of(Some(Class::RateLimit), Some(0.0)), Outcome::Limited { retry_after: None });
        assert_eq!(Outcome::of(Some(Class::Timeout), None), Outcome::Failed);
        assert_eq!(Outcome::of(None, None), Outcome::Left);
    }

    proptest! {
           /// Whatever requests end with, and in whatever order: nothing is in flight at the end, no deployment waits for
           /// a probe that is not there, and each can be asked again once it has been left alone for long enough.
           #[test]
           fn every_deployment_comes_back(
               steps in prop::collection::vec((0.0..4.0_f64, 0.0..1.0_f64, any::<bool>(), 0_usize..5, any::<usize>()), 1..200),
           ) {
               let mut pool = Pool::new(Strategy::Shuffle, deployments(3));
               let outcomes = [
                   WELL, Outcome::Failed, Outcome::Barred, Outcome::Limited { retry_after: Some(7.0) }, Outcome::Left,
               ];
               let (mut now, mut leases) = (0.0, Vec::new());
               for (pause, chance, ask, outcome, which) in steps {
                   now += pause;
                   if ask {
                       leases.extend(pool.lease(&Request::default(), now, chance));
                   } else if !leases.is_empty() {
                       let lease = leases.swap_remove(which % leases.len());
                       pool.settle(lease, outcomes[outcome], None, now);
                   }
                   let probing = pool.status(now).iter().filter(|status| status.health == Health::Probing).count();
                   prop_assert!(probing <= leases.len());
               }
               for lease in leases {
    pool.release(lease);
    }
               now += 60.0;
               for index in 0..3 {
                   let others: Vec<usize> = (0..3).filter(|other| *other != index).collect();
                   let request = Request { except: &others, ..Request::default() };
                   let lease = pool.lease(&request, now, 0.5);
                   prop_assert_eq!(lease.map(|lease| lease.index()), Ok(index));
                   prop_assert_eq!(pool.status(now)[index].in_flight, 1);
               }
           }
       }
}
