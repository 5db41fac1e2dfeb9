//! One request and its response, for an event loop.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Instant;

use penstock_engine::transfer::{self, Body, Line, Step};
use penstock_engine::wait::Want;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::connections::Connections;
use crate::decoder::{Decoder, Input, busy};
use crate::network::{self, Headers};

/// The loop's own thread reads, decrypts, unframes and decodes, when the loop says that there is something to read.
#[pyclass(frozen, weakref, module = "penstock._native")]
pub(crate) struct AsyncTransfer {
    state: Mutex<State>,
    line: Line,
    event_loop: Py<PyAny>,
}

struct State {
    transfer: transfer::Transfer,
    decoder: Option<Py<Decoder>>,
    goal: Goal,
    /// The sockets that the loop watches: they stay open until it does no longer.
    watched: Vec<Want>,
    /// The future that somebody awaits.
    waiter: Option<Py<PyAny>>,
    /// Something happened while nobody waited. It is left to the socket, which holds the server back.
    noticed: bool,
    timer: Option<(Py<PyAny>, Instant)>,
}

/// What reading is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    Head,
    Bytes,
    Chunks,
}

/// Something to hand out, or nothing yet. None within is the end.
type Outcome = Option<PyResult<Option<Py<PyAny>>>>;

impl AsyncTransfer {
    fn lock(&self) -> PyResult<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(busy()),
        }
    }

    /// A future for what comes next, with the loop watching for it.
    fn wait<'py>(slf: &Bound<'py, Self>, state: &mut State) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let event_loop = slf.get().event_loop.bind(py);
        Self::watch(slf, state)?;
        if let Some(deadline) = state.transfer.deadline() {
            Self::wake_at(slf, state, deadline)?;
        }
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        state.waiter = Some(future.clone().unbind());
        Ok(future)
    }

    /// Has the loop watch the sockets that the transfer waits for, and no others.
    fn watch(slf: &Bound<'_, Self>, state: &mut State) -> PyResult<()> {
        // The rule, and cheap: one socket, to be read.
        if state.goal != Goal::Head
            && matches!(state.watched.as_slice(), [Want { readable: true, writable: false, .. }])
        {
            return Ok(());
        }
        let wants = state.transfer.wants();
        Self::unwatch_but(slf, state, &wants)?;
        let event_loop = slf.get().event_loop.bind(slf.py());
        for want in wants {
            let number = number(&want);
            let same = state.watched.iter().position(|watched| self::number(watched) == number);
            let before = same.map(|same| state.watched.swap_remove(same));
            let (read, write) = before.map_or((false, false), |before| (before.readable, before.writable));
            let py = slf.py();
            for (name, wanted, now) in
                [(intern!(py, "add_reader"), want.readable, read), (intern!(py, "add_writer"), want.writable, write)]
            {
                if wanted && !now {
                    event_loop.call_method1(name, (number, slf.getattr(intern!(py, "_wake"))?))?;
                }
            }
            if write && !want.writable {
                event_loop.call_method1(intern!(py, "remove_writer"), (number,))?;
            }
            state.watched.push(want);
        }
        Ok(())
    }

    /// Has the loop watch none but these.
    fn unwatch_but(slf: &Bound<'_, Self>, state: &mut State, wants: &[Want]) -> PyResult<()> {
        let py = slf.py();
        let event_loop = slf.get().event_loop.bind(py);
        let mut kept = Vec::new();
        for watched in std::mem::take(&mut state.watched) {
            if wants.iter().any(|want| number(want) == number(&watched)) {
                kept.push(watched);
                continue;
            }
            if watched.readable {
                event_loop.call_method1(intern!(py, "remove_reader"), (number(&watched),))?;
            }
            if watched.writable {
                event_loop.call_method1(intern!(py, "remove_writer"), (number(&watched),))?;
            }
        }
        state.watched = kept;
        Ok(())
    }

    /// One timer at a time. One that is early is left as it is: when it comes it is set anew.
    fn wake_at(slf: &Bound<'_, Self>, state: &mut State, deadline: Instant) -> PyResult<()> {
        let py = slf.py();
        if let Some((timer, at)) = &state.timer {
            if *at <= deadline {
                return Ok(());
            }
            timer.call_method0(py, intern!(py, "cancel"))?;
        }
        let seconds = deadline.saturating_duration_since(Instant::now()).as_secs_f64();
        let ring = slf.getattr(intern!(py, "_ring"))?;
        let timer = slf.get().event_loop.call_method1(py, intern!(py, "call_later"), (seconds, ring))?;
        state.timer = Some((timer, deadline));
        Ok(())
    }

    /// Takes everything out of the loop's hands.
    fn rest(slf: &Bound<'_, Self>, state: &mut State) -> PyResult<()> {
        if let Some((timer, _)) = state.timer.take() {
            timer.call_method0(slf.py(), intern!(slf.py(), "cancel"))?;
        }
        Self::unwatch_but(slf, state, &[])
    }

    /// Goes on as far as it can.
    fn drive(slf: &Bound<'_, Self>, state: &mut State) -> PyResult<Outcome> {
        let outcome = match state.goal {
            Goal::Head => Self::drive_to_head(slf.py(), state),
            Goal::Bytes | Goal::Chunks => Self::drive_body(slf.py(), state),
        };
        if state.transfer.is_over() {
            Self::rest(slf, state)?;
        }
        Ok(outcome)
    }

    fn drive_to_head(py: Python<'_>, state: &mut State) -> Outcome {
        let step = match state.transfer.advance(Instant::now()) {
            Err(error) => return Some(Err(network::raise(&error))),
            Ok(Step::Wait) => return None,
            Ok(Step::Answered) => {
                state.goal = Goal::Bytes;
                return Some(Ok(None));
            }
            Ok(Step::Resolve(host, port)) => (host, port).into_pyobject(py),
        };
        Some(step.map(|place| Some(place.into_any().unbind())))
    }

    fn drive_body(py: Python<'_>, state: &mut State) -> Outcome {
        network::with_buffer(|buffer| {
            loop {
                let data = match state.transfer.read(buffer) {
                    Ok(Body::Data(data)) => data,
                    Ok(Body::Wait) => return None,
                    Ok(Body::End) => return Some(Ok(None)),
                    Err(error) => return Some(Err(network::raise(&error))),
                };
                let Some(decoder) = state.decoder.as_ref().filter(|_| state.goal == Goal::Chunks) else {
                    return Some(Ok(Some(PyBytes::new(py, data).into_any().unbind())));
                };
                let decoder = decoder.get();
                match decoder.run(py, Some(data)) {
                    Err(error) => return Some(Err(error)),
                    Ok(Some(chunks)) if !chunks.is_empty() || decoder.is_over() => {
                        return Some(Ok(Some(chunks.into_any().unbind())));
                    }
                    Ok(_) if state.transfer.is_pending() => {}
                    Ok(_) => return None,
                }
            }
        })
    }

    /// What comes next: the thing itself, or a future for it.
    fn next<'py>(slf: &Bound<'py, Self>, goal: Goal) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut state = slf.get().lock()?;
        state.goal = goal;
        let noticed = std::mem::take(&mut state.noticed);
        let outcome = if goal == Goal::Head || noticed || state.transfer.is_pending() {
            Self::drive(slf, &mut state)?
        } else {
            None
        };
        match outcome {
            Some(outcome) => Ok(outcome?.map(|item| item.into_bound(slf.py()))),
            None => Self::wait(slf, &mut state).map(Some),
        }
    }

    /// Something happened: a socket is ready, or a time has come.
    fn notice(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let Ok(mut state) = slf.get().lock() else { return Ok(()) };
        let is_waiting = match &state.waiter {
            // A future that was cancelled has nobody to hear what would be read.
            Some(waiter) => !waiter.bind(py).call_method0(intern!(py, "done"))?.is_truthy()?,
            None => false,
        };
        if !is_waiting {
            state.waiter = None;
            // Nothing is read ahead: what the decoder has seen must be what was handed out, its end above all.
            state.noticed = true;
            return Self::unwatch_but(slf, &mut state, &[]);
        }
        let Some(outcome) = Self::drive(slf, &mut state)? else {
            Self::watch(slf, &mut state)?;
            if let Some(deadline) = state.transfer.deadline() {
                Self::wake_at(slf, &mut state, deadline)?;
            }
            return Ok(());
        };
        let Some(waiter) = state.waiter.take() else { return Ok(()) };
        drop(state);
        Self::fulfil(waiter.bind(py), outcome)
    }

    fn fulfil(waiter: &Bound<'_, PyAny>, outcome: PyResult<Option<Py<PyAny>>>) -> PyResult<()> {
        let py = waiter.py();
        if waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
            return Ok(()); // cancelled: nobody is there to hear it
        }
        match outcome {
            Ok(item) => waiter.call_method1(intern!(py, "set_result"), (item,))?,
            Err(error) => waiter.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?,
        };
        Ok(())
    }
}

#[cfg(unix)]
fn number(want: &Want) -> i64 {
    use std::os::fd::AsRawFd;
    want.socket.as_raw_fd().into()
}

#[cfg(windows)]
fn number(want: &Want) -> i64 {
    use std::os::windows::io::AsRawSocket;
    i64::try_from(want.socket.as_raw_socket()).unwrap_or(-1)
}

#[pymethods]
impl AsyncTransfer {
    #[new]
    #[pyo3(signature = (
        pool, event_loop, url, headers, content = None, *, method = "POST", connect = None, wait = None, decode = true
    ))]
    #[expect(clippy::too_many_arguments, reason = "a request has as many parts")]
    fn new(
        pool: &Bound<'_, Connections>,
        event_loop: Py<PyAny>,
        url: &str,
        headers: Headers,
        content: Option<Input<'_>>,
        method: &str,
        connect: Option<f64>,
        wait: Option<f64>,
        decode: bool,
    ) -> PyResult<Self> {
        let transfer = network::begin(pool.get(), method, url, &headers, content, (connect, wait), decode)?;
        let line = transfer.line();
        let state = State {
            transfer,
            decoder: None,
            goal: Goal::Head,
            watched: Vec::new(),
            waiter: None,
            noticed: false,
            timer: None,
        };
        Ok(Self { state: Mutex::new(state), line, event_loop })
    }

    fn send<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::next(slf, Goal::Head)
    }

    fn resolved(&self, addresses: Vec<(String, u16)>) -> PyResult<()> {
        self.lock()?.transfer.resolved(network::addresses(addresses), Instant::now());
        Ok(())
    }

    #[getter]
    fn head(&self) -> PyResult<Option<(u16, Headers)>> {
        Ok(self.lock()?.transfer.head().map(|head| (head.status, head.headers.clone())))
    }

    fn attach(&self, decoder: Py<Decoder>) -> PyResult<()> {
        self.lock()?.decoder = Some(decoder);
        Ok(())
    }

    fn keep_time(slf: &Bound<'_, Self>, idle: Option<f64>, due: Option<f64>) -> PyResult<()> {
        let mut state = slf.get().lock()?;
        state.transfer.clocks.idle = idle.and_then(network::duration);
        state.transfer.clocks.due = network::after(Instant::now(), due);
        match state.transfer.deadline() {
            Some(deadline) if state.waiter.is_some() => Self::wake_at(slf, &mut state, deadline),
            _ => Ok(()),
        }
    }

    fn read<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::next(slf, Goal::Bytes)
    }

    fn pull<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::next(slf, Goal::Chunks)
    }

    fn shut(&self) {
        self.line.shut();
    }

    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().line.shut();
        let Ok(mut state) = slf.get().lock() else { return Ok(()) };
        let rested = Self::rest(slf, &mut state);
        state.transfer.abort();
        let waiter = state.waiter.take();
        drop(state);
        if let Some(waiter) = waiter {
            Self::fulfil(waiter.bind(slf.py()), Ok(None))?;
        }
        rested
    }

    fn _wake(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::notice(slf)
    }

    fn _ring(slf: &Bound<'_, Self>) -> PyResult<()> {
        {
            let Ok(mut state) = slf.get().lock() else { return Ok(()) };
            state.timer = None;
            if state.waiter.is_none() {
                return Ok(()); // set anew with the next wait
            }
        }
        Self::notice(slf)
    }
}
