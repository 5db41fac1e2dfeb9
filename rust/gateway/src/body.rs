//! What goes to the client: whole, or as it comes from the upstream.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use penstock_core::chunk::{Chunk, Text};
use penstock_core::decoder::{Decoder, Options, decode_document};
use penstock_core::error::{Class, Error};
use penstock_core::policy::pool::Outcome;
use penstock_core::stream::{Part, Sink};
use penstock_core::usage::Usage;
use penstock_core::write::Writer;
use tokio::runtime::Handle;
use tokio::time::{Instant as Moment, Sleep, sleep};

use crate::account::{Account, Ending, Leased};
use crate::ask::Operation;
use crate::metrics::Open;
use crate::problem::{Problem, of_network};
use crate::state::{Deployment, Shared};
use crate::tables::{OnDisconnect, Settings};
use crate::upstream::{Upstream, duration};

/// For the end of the body after the stream has said that it is over: with it the connection can be used again, without
/// it a slow server would hold up a client that has everything.
const TAIL: Duration = Duration::from_millis(250);

/// Between two looks of a stream without a client whether the proxy ends.
const LOOK: Duration = Duration::from_millis(100);

/// What stands for a word from the upstream while there is none: a comment, which readers of events pass over.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// The body of a response.
#[derive(Debug)]
pub(crate) enum Reply {
    Whole(Bytes),
    Stream(Box<Streamed>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.poll(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Where the chunks of an upstream go.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub(crate) enum Out {
    /// Written in the client's language.
    Written(Writer),
    /// Nowhere: the client speaks the upstream's own language, and gets its bytes.
    Same(Whole),
}

/// Events as they came, of which only whole ones go out: what is said between two of them, that the proxy is still
/// there or that the upstream no longer is, stands between them for the client too.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    bytes: Vec<u8>,
    /// Where the last whole event ends.
    end: usize,
}

impl Whole {
    fn push(&mut self, data: &[u8]) {
        // An empty line may begin before these bytes; with CR LF it has three bytes more.
        let seen = self.bytes.len().saturating_sub(3).max(self.end);
        self.bytes.extend_from_slice(data);
        let fresh = self.bytes.get(seen..).unwrap_or_default();
        let mut ends = memchr::memrchr_iter(b'\n', fresh);
        let end = ends.find(|at| {
            let before = fresh.get(..*at).unwrap_or_default();
            let before = before.strip_suffix(b"\r").unwrap_or(before);
            before.last() == Some(&b'\n')
        });
        if let Some(at) = end {
            self.end = seen + at + 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.end == 0
    }

    fn take(&mut self) -> Vec<u8> {
        let rest = self.bytes.split_off(self.end);
        self.end = 0;
        std::mem::replace(&mut self.bytes, rest)
    }

    /// Nothing more comes: what is left goes out as it is.
    fn finish(&mut self) {
        self.end = self.bytes.len();
    }

    /// Nothing more comes but this, and what is left of an event is no event.
    fn end_with(&mut self, event: &[u8]) {
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(event);
        self.end = self.bytes.len();
    }
}

impl Out {
    fn feed(&mut self, decoder: &mut Decoder, data: &[u8], chunks: &mut u64) -> Result<(), Error> {
        match self {
            Self::Written(writer) => decoder.feed(data, &mut Counted { sink: writer, chunks }),
            Self::Same(out) => {
                out.push(data);
                decoder.feed(data, &mut Counted { sink: &mut Nowhere, chunks })
            }
        }
    }

    fn finish(&mut self, decoder: &mut Decoder, chunks: &mut u64) -> Result<(), Error> {
        match self {
            Self::Written(writer) => decoder.finish(&mut Counted { sink: writer, chunks }),
            Self::Same(out) => {
                let finished = decoder.finish(&mut Counted { sink: &mut Nowhere, chunks });
                if finished.is_ok() {
                    out.finish();
                }
                finished
            }
        }
    }

    /// The stream is whole.
    fn done(&mut self) {
        match self {
            Self::Written(writer) => writer.done(),
            Self::Same(out) => out.finish(),
        }
    }

    /// It is not. An error of the upstream's own has gone out already where its bytes do.
    fn error(&mut self, error: &Error, operation: Operation) {
        match self {
            Self::Written(writer) => writer.error(error),
            Self::Same(out) if error.details.body.starts_with(b"{") => out.finish(),
            Self::Same(out) => out.end_with(&error_event(operation, error)),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Written(writer) => writer.is_empty(),
            Self::Same(out) => out.is_empty(),
        }
    }

    fn take(&mut self) -> Bytes {
        match self {
            Self::Written(writer) => writer.take().into(),
            Self::Same(out) => out.take().into(),
        }
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn chunk(&mut self, _: &Chunk<'_>) {}
    fn again(&mut self, _: Part, _: &Text<'_>) {}
}

struct Counted<'c, S> {
    sink: &'c mut S,
    chunks: &'c mut u64,
}

impl<S: Sink> Sink for Counted<'_, S> {
    fn chunk(&mut self, chunk: &Chunk<'_>) {
        *self.chunks += 1;
        self.sink.chunk(chunk);
    }

    #[inline]
    fn again(&mut self, part: Part, text: &Text<'_>) {
        *self.chunks += 1;
        self.sink.again(part, text);
    }
}

/// An answer that an upstream is giving.
#[derive(Debug)]
pub(crate) struct Flow {
    upstream: Option<Upstream>,
    decoder: Decoder,
    writer: Out,
    operation: Operation,
    /// What a whole response said of its usage, which came in place of a stream.
    usage: Option<Usage>,
    leased: Option<Leased>,
    account: Option<Account>,
    deployment: Arc<Deployment>,
    spoken: bool,
    on_disconnect: OnDisconnect,
    drain: Duration,
}

impl Flow {
    pub(crate) fn new(
        upstream: Upstream,
        decoder: Decoder,
        writer: Out,
        operation: Operation,
        deployment: Arc<Deployment>,
    ) -> Self {
        Self {
            upstream: Some(upstream),
            decoder,
            writer,
            operation,
            usage: None,
            leased: None,
            account: None,
            deployment,
            spoken: false,
            on_disconnect: OnDisconnect::Abort,
            drain: Duration::ZERO,
        }
    }

    /// Reads up to the first event. An error until then is nobody's but ours.
    pub(crate) async fn begin(&mut self, chunks: &mut u64) -> Result<(), Error> {
        loop {
            let Some(upstream) = &mut self.upstream else { return Ok(()) };
            let (decoder, writer) = (&mut self.decoder, &mut self.writer);
            let fed = upstream.read(|data| writer.feed(decoder, data, chunks)).await.map_err(of_network)?;
            let Some(fed) = fed else {
                self.upstream = None;
                return self.writer.finish(&mut self.decoder, chunks);
            };
            fed?;
            if *chunks > 0 || self.decoder.ended() {
                return Ok(());
            }
        }
    }

    /// What was read to see whether this is a stream at all.
    pub(crate) fn begin_with(&mut self, data: &[u8], chunks: &mut u64) -> Result<(), Error> {
        self.writer.feed(&mut self.decoder, data, chunks)
    }

    /// The bytes that come next; None at the end.
    pub(crate) async fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let Some(upstream) = &mut self.upstream else { return Ok(None) };
        upstream.read(<[u8]>::to_vec).await.map_err(of_network)
    }

    /// The rest of a body that is one document: the server did not stream.
    pub(crate) async fn document(
        &mut self,
        mut body: Vec<u8>,
        options: Options,
        limit: usize,
        chunks: &mut u64,
    ) -> Result<(), Error> {
        if let Some(upstream) = &mut self.upstream {
            body.extend(upstream.whole(limit).await.map_err(of_network)?);
        }
        self.upstream = None;
        self.usage = match &mut self.writer {
            Out::Written(writer) => {
                decode_document(self.deployment.family, options, &body, &mut Counted { sink: writer, chunks })?
            }
            Out::Same(_) => {
                return Err(Error::new(Class::ResponseValidation, "the server did not stream, though it was asked to"));
            }
        };
        Ok(())
    }

    /// From here on the client is being answered.
    pub(crate) fn answers(mut self, account: Account, leased: Leased, settings: &Settings) -> Self {
        self.account = Some(account);
        self.leased = Some(leased);
        self.on_disconnect = settings.on_disconnect;
        self.drain = duration(settings.drain_seconds).unwrap_or(Duration::MAX);
        self
    }

    /// The next bytes for the client; None at the end.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            self.attend();
            if !self.writer.is_empty() {
                return Poll::Ready(Some(self.writer.take()));
            }
            let Some(account) = &mut self.account else { return Poll::Ready(None) };
            if let Some(error) = self.decoder.failure() {
                let error = error.clone();
                self.fail(&error);
                continue;
            }
            let Some(upstream) = &mut self.upstream else {
                self.complete();
                continue;
            };
            let (decoder, writer, chunks) = (&mut self.decoder, &mut self.writer, account.chunks());
            match upstream.poll_read(context, |data| writer.feed(decoder, data, chunks)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(Ok(())))) => {
                    if self.decoder.ended() {
                        self.rest();
                    }
                }
                Poll::Ready(Ok(Some(Err(error)))) => self.fail(&error),
                Poll::Ready(Ok(None)) => {
                    self.upstream = None;
                    if let Err(error) = writer.finish(decoder, chunks) {
                        self.fail(&error);
                    }
                }
                Poll::Ready(Err(error)) => {
                    // The last event may be whole but for the line end behind it.
                    let whole = writer.finish(decoder, chunks).is_ok() && decoder.failure().is_none();
                    self.upstream = None;
                    if !whole {
                        self.fail(&of_network(error));
                    }
                }
            }
        }
    }

    /// Notes when the first token has come.
    fn attend(&mut self) {
        if !self.spoken && self.decoder.has_spoken() {
            self.spoken = true;
            if let Some(upstream) = &mut self.upstream {
                upstream.spoke();
            }
            if let Some(account) = &mut self.account {
                account.spoke();
            }
        }
    }

    /// The stream has said all. What is left of the body is read aside. Not inlined, and the future large: else each
    /// chunk would have the stack for it.
    #[inline(never)]
    fn rest(&mut self) {
        let Some(mut upstream) = self.upstream.take().filter(|upstream| !upstream.is_over()) else { return };
        tokio::spawn(async move {
            let _ = tokio::time::timeout(TAIL, async { while let Ok(Some(())) = upstream.read(|_| ()).await {} }).await;
        });
    }

    fn complete(&mut self) {
        self.writer.done();
        self.settle(Ending::Complete, None);
    }

    /// The client is told, and nothing follows.
    pub(crate) fn fail(&mut self, error: &Error) {
        if self.account.is_none() {
            return; // it was over already
        }
        self.upstream = None;
        self.writer.error(error, self.operation);
        self.settle(Ending::Cut, Some(error));
    }

    fn settle(&mut self, how: Ending, error: Option<&Error>) {
        let Some(mut account) = self.account.take() else { return };
        account.charge(self.decoder.usage().or(self.usage.as_ref()), &self.deployment);
        account.end(how, 200, error.map(|error| error.class.name()));
        let outcome = match error {
            // A client that has gone says nothing about the upstream, whose answer was good so far.
            None => Outcome::Answered { seconds: None },
            Some(error) => Outcome::of(Some(error.class), error.details.retry_after),
        };
        if let Some(leased) = &mut self.leased {
            leased.settle(outcome, account.tokens());
        }
    }

    /// Reads on to the usage without a client.
    async fn drain(mut self: Box<Self>) {
        let mut limit = std::pin::pin!(sleep(self.drain));
        let mut look = std::pin::pin!(sleep(LOOK));
        std::future::poll_fn(|context| {
            while look.as_mut().poll(context).is_ready() {
                if self.account.as_ref().is_some_and(|account| account.shared.cutting.load(Ordering::Acquire)) {
                    return Poll::Ready(());
                }
                look.as_mut().reset(Moment::now() + LOOK);
            }
            if limit.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            loop {
                self.attend();
                let Some(account) = &mut self.account else { break };
                if let (None, Some(upstream)) = (self.decoder.failure(), &mut self.upstream) {
                    let (decoder, writer, chunks) = (&mut self.decoder, &mut self.writer, account.chunks());
                    match upstream.poll_read(context, |data| writer.feed(decoder, data, chunks)) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(Some(Ok(())))) if !decoder.ended() => {}
                        Poll::Ready(Ok(None)) => {
                            self.upstream = None;
                            let _ = writer.finish(decoder, chunks);
                        }
                        Poll::Ready(_) => self.upstream = None,
                    }
                    self.writer.take();
                    continue;
                }
                self.settle(Ending::Left, None);
            }
            Poll::Ready(())
        })
        .await;
        self.on_disconnect = OnDisconnect::Abort;
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.settle(Ending::Left, None);
    }
}

/// An answer that is waited for, with nobody told yet how it will be.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Result<Box<Flow>, (Option<Account>, Problem)>> + Send>>;

/// A stream as the client has it.
pub(crate) struct Streamed {
    shared: Arc<Shared>,
    /// Counts it.
    _open: Open,
    stage: Stage,
    /// How long there may be none, and a timer that rings then or before.
    silence: Option<(Duration, Pin<Box<Sleep>>)>,
    /// When the client last got something.
    said: Instant,
    greets: bool,
    operation: Operation,
}

enum Stage {
    /// The head is out, the answer is not there yet.
    Pending(Pending),
    Flowing(Box<Flow>),
    Over,
}

impl std::fmt::Debug for Streamed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streamed").finish_non_exhaustive()
    }
}

impl Streamed {
    /// With the answer, or with nothing but the hope of one.
    pub(crate) fn new(
        shared: Arc<Shared>,
        begun: Result<Box<Flow>, Pending>,
        silence: f64,
        operation: Operation,
    ) -> Self {
        let silence = duration(silence).filter(|silence| !silence.is_zero());
        Self {
            _open: Open::new(Arc::clone(&shared)),
            shared,
            stage: begun.map_or_else(Stage::Pending, Stage::Flowing),
            silence: silence.map(|silence| (silence, Box::pin(sleep(silence)))),
            said: Instant::now(),
            greets: false,
            operation,
        }
    }

    /// With a word of ours to begin with.
    pub(crate) fn at_once(mut self) -> Self {
        self.greets = true;
        self
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if std::mem::take(&mut self.greets) {
            return Poll::Ready(Some(Bytes::from_static(KEEP_ALIVE)));
        }
        if self.shared.cutting.load(Ordering::Acquire) {
            self.cut();
        }
        let polled = loop {
            match &mut self.stage {
                Stage::Over => return Poll::Ready(None),
                Stage::Flowing(flow) => break flow.poll(context),
                Stage::Pending(pending) => match pending.as_mut().poll(context) {
                    Poll::Pending => break Poll::Pending,
                    Poll::Ready(Ok(flow)) => self.stage = Stage::Flowing(flow),
                    Poll::Ready(Err((account, problem))) => {
                        drop(account);
                        self.stage = Stage::Over;
                        return Poll::Ready(Some(error_event(self.operation, &problem.error)));
                    }
                },
            }
        };
        match polled {
            Poll::Ready(bytes) => {
                self.said = Instant::now();
                Poll::Ready(bytes)
            }
            Poll::Pending => self.break_silence(context).map(Some),
        }
    }

    /// Ready with a word of ours, where there has been none for too long.
    fn break_silence(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        let Some((silence, timer)) = &mut self.silence else { return Poll::Pending };
        while timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let due = self.said + *silence;
            if due <= now {
                self.said = now;
                timer.as_mut().reset(Moment::from_std(now + *silence));
                return Poll::Ready(Bytes::from_static(KEEP_ALIVE));
            }
            timer.as_mut().reset(Moment::from_std(due));
        }
        Poll::Pending
    }

    /// The proxy ends before the stream does.
    fn cut(&mut self) {
        match &mut self.stage {
            Stage::Flowing(flow) => flow.fail(&ending()),
            Stage::Pending(_) => {
                let failed = async { Err((None, Problem::from(ending()))) };
                self.stage = Stage::Pending(Box::pin(failed));
            }
            Stage::Over => {}
        }
    }
}

#[cold]
pub(crate) fn ending() -> Error {
    Error::new(Class::ServiceUnavailable, "the proxy is being shut down")
}

impl Drop for Streamed {
    fn drop(&mut self) {
        if let Stage::Flowing(flow) = std::mem::replace(&mut self.stage, Stage::Over)
            && flow.on_disconnect == OnDisconnect::Drain
            && flow.account.is_some()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(flow.drain());
        }
    }
}

/// An error as the only event of a stream.
pub(crate) fn error_event(operation: Operation, error: &Error) -> Bytes {
    let mut writer = operation.writer(None);
    writer.error(error);
    writer.take().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes out at each push.
    fn pushed(parts: &[&str]) -> Vec<String> {
        let mut whole = Whole::default();
        let taken = |whole: &mut Whole| String::from_utf8(whole.take()).unwrap();
        let mut out: Vec<_> = parts
            .iter()
            .map(|part| {
                whole.push(part.as_bytes());
                taken(&mut whole)
            })
            .collect();
        whole.finish();
        out.push(taken(&mut whole));
        out
    }

    #[test]
    fn events_go_out_whole() {
        assert_eq!(pushed(&["a: 1\n\nb: 2\n", "\nc"]), ["a: 1\n\n", "b: 2\n\n", "c"]);
        assert_eq!(pushed(&["a\n\nb\n\nc"]), ["a\n\nb\n\n", "c"]);
        assert_eq!(pushed(&["a\r\n", "\r", "\nb\r\n\r\n"]), ["", "", "a\r\n\r\nb\r\n\r\n", ""]);
        assert_eq!(pushed(&["a\n", "b\n"]), ["", "", "a\nb\n"]);
    }

    #[test]
    fn however_a_stream_is_split_it_is_the_same() {
        let text = "event: a\ndata: 1\n\n: word\n\ndata: 2\r\n\r\ndata: 3\n\n\ndata: 4";
        for first in 0..text.len() {
            for second in first..text.len() {
                let parts = [&text[..first], &text[first..second], &text[second..]];
                let out = pushed(&parts);
                assert_eq!(out.concat(), text);
                assert_eq!(out[3].trim_start_matches('\n'), "data: 4", "{parts:?}");
                assert!(
                    out[..3].iter().all(|part| part.is_empty() || part.ends_with("\n\n") || part.ends_with("\r\n\r\n"))
                );
            }
        }
    }

    #[test]
    fn what_is_left_of_an_event_is_not_told_before_the_error() {
        let mut whole = Whole::default();
        whole.push(b"a\n\ndata: {\"b");
        whole.end_with(b"error\n\n");
        assert_eq!(whole.take(), b"a\n\nerror\n\n");
        assert!(whole.is_empty());
    }
}
