//! One request and its response, for an event loop.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Instant;

use penstock_engine::transfer::{self, Body, Line, Step};
use penstock_engine::wait::Want;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyWeakrefMethods, PyWeakrefReference};

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
    /// The task that awaits what comes next.
    waiter: Option<Waiter>,
    /// Of the protocol of futures: whether it was yielded by `await`, and not by mistake.
    blocking: bool,
    /// What comes next, until it is fetched.
    outcome: Outcome,
    /// Something happened while nobody waited. It is left to the socket, which holds the server back.
    noticed: bool,
    timer: Option<(Py<PyAny>, Instant)>,
}

/// A task, as it makes itself known to a future.
struct Waiter {
    wake: Py<PyAny>,
    context: Option<Py<PyAny>>,
    /// The message of its cancellation: it wakes up soon, to hear of it.
    cancelled: Option<Py<PyAny>>,
}

impl Waiter {
    fn wake_now(&self, transfer: &Bound<'_, AsyncTransfer>) -> PyResult<()> {
        let py = transfer.py();
        match &self.context {
            Some(context) => run_in(context.bind(py), self.wake.bind(py), transfer),
            None => self.wake.call1(py, (transfer,)).map(drop),
        }
    }
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

    /// Has the loop watch for what comes next.
    fn wait(slf: &Bound<'_, Self>, state: &mut State) -> PyResult<()> {
        Self::watch(slf, state)?;
        if let Some(deadline) = state.transfer.deadline() {
            Self::wake_at(slf, state, deadline)?;
        }
        Ok(())
    }

    /// Has the loop watch the sockets that the transfer waits for, and no others.
    fn watch(slf: &Bound<'_, Self>, state: &mut State) -> PyResult<()> {
        // The rule, and cheap: one socket, to be read.
        if state.goal != Goal::Head
            && !state.transfer.is_shared()
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

    /// Has the loop look after this transfer when another that shares its connection has read something for it.
    fn listen(slf: &Bound<'_, Self>) -> PyResult<()> {
        let state = slf.get().lock()?;
        if !state.transfer.may_share() {
            return Ok(());
        }
        let (transfer, thread) = (PyWeakrefReference::new(slf)?.unbind(), std::thread::current().id());
        let ring = move |py: Python<'_>| -> PyResult<()> {
            let Some(transfer) = transfer.bind(py).upgrade_as::<Self>()? else { return Ok(()) };
            let here = std::thread::current().id() == thread;
            let soon = if here { intern!(py, "call_soon") } else { intern!(py, "call_soon_threadsafe") };
            let wake = transfer.getattr(intern!(py, "_wake"))?;
            transfer.get().event_loop.call_method1(py, soon, (wake,)).map(drop)
        };
        state.transfer.on_ring(move || {
            // Nobody is there at the interpreter's end. Elsewhere this may be called while an exception is on its way,
            // and a loop that was closed needs to hear nothing.
            Python::try_attach(|py| {
                let underway = PyErr::take(py);
                drop(ring(py));
                if let Some(underway) = underway {
                    underway.restore(py);
                }
            });
        });
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

    /// What comes next: the thing itself, or this object to await it.
    fn next<'py>(slf: &Bound<'py, Self>, goal: Goal) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut state = slf.get().lock()?;
        if state.waiter.is_some() {
            return Err(busy()); // two would wait, and one would be woken
        }
        state.goal = goal;
        let noticed = std::mem::take(&mut state.noticed);
        let outcome = match state.outcome.take() {
            None if goal == Goal::Head || noticed || state.transfer.is_pending() => Self::drive(slf, &mut state)?,
            outcome => outcome,
        };
        match outcome {
            Some(outcome) => Ok(outcome?.map(|item| item.into_bound(slf.py()))),
            None => Self::wait(slf, &mut state).map(|()| Some(slf.clone().into_any())),
        }
    }

    /// Something happened: a socket is ready, or a time has come.
    fn notice(slf: &Bound<'_, Self>) -> PyResult<()> {
        let Ok(mut state) = slf.get().lock() else { return Ok(()) };
        // A task that was cancelled does not hear what would be read.
        if state.waiter.as_ref().is_none_or(|waiter| waiter.cancelled.is_some()) || state.outcome.is_some() {
            // Nothing is read ahead: what the decoder has seen must be what was handed out, its end above all.
            state.noticed = true;
            Self::unwatch_but(slf, &mut state, &[])?;
            state.transfer.rest();
            return Ok(());
        }
        state.outcome = Self::drive(slf, &mut state)?;
        if state.outcome.is_none() {
            return Self::wait(slf, &mut state);
        }
        let Some(waiter) = state.waiter.take() else { return Ok(()) };
        drop(state);
        // At once: a turn of the loop in between would cost as much as the reading.
        match waiter.wake_now(slf) {
            // A loop that runs within a task (nest_asyncio) may be inside that context.
            Err(error) if error.is_instance_of::<PyRuntimeError>(slf.py()) => Self::wake_soon(slf, &waiter),
            outcome => outcome,
        }
    }

    /// Has the task woken up by the loop: from within another one there is no other way.
    fn wake_soon(slf: &Bound<'_, Self>, waiter: &Waiter) -> PyResult<()> {
        let py = slf.py();
        let options = PyDict::new(py);
        options.set_item(intern!(py, "context"), &waiter.context)?;
        let call_soon = slf.get().event_loop.bind(py).getattr(intern!(py, "call_soon"))?;
        call_soon.call((&waiter.wake, slf), Some(&options)).map(drop)
    }
}

/// `context.run(wake, transfer)`, without the bound method and the tuple that `call_method1` would make for each chunk.
fn run_in(context: &Bound<'_, PyAny>, wake: &Bound<'_, PyAny>, transfer: &Bound<'_, AsyncTransfer>) -> PyResult<()> {
    let (py, end) = (context.py(), std::ptr::null_mut::<ffi::PyObject>());
    let name = intern!(py, "run").as_ptr();
    // SAFETY: all are objects that live as long as this call, and a null ends them, as the function asks for.
    unsafe {
        let given = ffi::PyObject_CallMethodObjArgs(context.as_ptr(), name, wake.as_ptr(), transfer.as_ptr(), end);
        Bound::from_owned_ptr_or_err(py, given).map(drop)
    }
}

/// Ends an iteration with a value. Who awaits takes it as it is set here, up to Python 3.11 without an exception's
/// having been made for it; a `PyErr` makes one always, for 1,400 instructions a chunk.
fn finish_with(py: Python<'_>, item: Option<Py<PyAny>>) -> PyResult<()> {
    let item = item.unwrap_or_else(|| py.None());
    if item.bind(py).is_instance_of::<PyTuple>() {
        return Err(PyStopIteration::new_err((item,))); // it would be taken for the arguments
    }
    // SAFETY: both are objects; the iteration ends with the exception that is set.
    unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, item.as_ptr()) };
    Ok(())
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
        let transfer = network::begin(pool.get(), method, url, headers, content, (connect, wait), decode)?;
        let line = transfer.line();
        let state = State {
            transfer,
            decoder: None,
            goal: Goal::Head,
            watched: Vec::new(),
            waiter: None,
            blocking: false,
            outcome: None,
            noticed: false,
            timer: None,
        };
        Ok(Self { state: Mutex::new(state), line, event_loop })
    }

    fn send<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::listen(slf)?;
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

    #[getter]
    fn version(&self) -> PyResult<Option<&'static str>> {
        Ok(self.lock()?.transfer.head().map(|head| head.version))
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
        if let Some(waiter) = &state.waiter
            && waiter.cancelled.is_none()
            && state.outcome.is_none()
        {
            Self::wake_soon(slf, waiter)?;
            state.outcome = Some(Ok(None));
        }
        rested
    }

    // What a task asks of what it awaits: the protocol of asyncio's futures. A future of asyncio's own would wake the
    // task by the loop, a turn later.

    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<Self>>> {
        let mut state = slf.get().lock()?;
        match state.outcome.take() {
            None => {
                state.blocking = true;
                Ok(Some(slf.clone().unbind()))
            }
            Some(Ok(item)) => finish_with(slf.py(), item).map(|()| None),
            Some(Err(error)) => Err(error),
        }
    }

    #[getter(_asyncio_future_blocking)]
    fn blocking(&self) -> PyResult<bool> {
        Ok(self.lock()?.blocking)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, blocking: bool) -> PyResult<()> {
        self.lock()?.blocking = blocking;
        Ok(())
    }

    fn get_loop(&self, py: Python<'_>) -> Py<PyAny> {
        self.event_loop.clone_ref(py)
    }

    #[pyo3(signature = (wake, /, *, context = None))]
    fn add_done_callback(&self, wake: Py<PyAny>, context: Option<Py<PyAny>>) -> PyResult<()> {
        self.lock()?.waiter = Some(Waiter { wake, context, cancelled: None });
        Ok(())
    }

    #[pyo3(signature = (msg = None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        let mut state = slf.get().lock()?;
        if state.outcome.is_some() {
            return Ok(false);
        }
        let Some(waiter) = &mut state.waiter else { return Ok(false) };
        if waiter.cancelled.is_none() {
            waiter.cancelled = Some(msg.unwrap_or_else(|| slf.py().None()));
            Self::wake_soon(slf, waiter)?;
        }
        Ok(true)
    }

    /// Called by the task as it wakes up. What there is it fetches itself.
    fn result(&self, py: Python<'_>) -> PyResult<()> {
        let waiter = self.lock()?.waiter.take();
        match waiter.and_then(|waiter| waiter.cancelled) {
            None => Ok(()),
            Some(message) if message.is_none(py) => Err(CancelledError::new_err(())),
            Some(message) => Err(CancelledError::new_err((message,))),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        // In use: then somebody else holds on to it.
        let Ok(state) = self.state.try_lock() else { return Ok(()) };
        visit.call(&state.decoder)?;
        if let Some(waiter) = &state.waiter {
            visit.call(&waiter.wake)?;
            visit.call(&waiter.context)?;
            visit.call(&waiter.cancelled)?;
        }
        if let Some(Ok(item)) = &state.outcome {
            visit.call(item)?;
        }
        visit.call(state.timer.as_ref().map(|(timer, _)| timer))
    }

    fn __clear__(&self) {
        // Dropped when the lock is free: dropping may come back here.
        let Ok(mut state) = self.state.try_lock() else { return };
        let State { decoder, waiter, outcome, timer, .. } = &mut *state;
        let kept = (decoder.take(), waiter.take(), outcome.take(), timer.take());
        drop(state);
        drop(kept);
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
