//! The same recordings over HTTP/2 within TLS. Streams of one connection are served side by side.

use std::error::Error;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{Request, Response};
use rustls::ServerConfig;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use crate::recording::{Asked, Found, Library};

/// Streams of one connection: as many as common servers let there be.
const STREAMS: u32 = 100;

pub(crate) fn run(library: Library, listener: TcpListener, config: Arc<ServerConfig>) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let library = Rc::new(library);
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let acceptor = TlsAcceptor::from(config);
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let (library, acceptor) = (library.clone(), acceptor.clone());
            tokio::task::spawn_local(async move {
                // Whoever has gone has gone: that is no error here.
                if let Ok(stream) = acceptor.accept(socket).await {
                    let _ = connection(stream, &library).await;
                }
            });
        }
    })
}

async fn connection(
    stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    library: &Rc<Library>,
) -> Result<(), h2::Error> {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(STREAMS).max_send_buffer_size(1 << 20);
    let mut connection = builder.handshake::<_, Bytes>(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let library = library.clone();
        tokio::task::spawn_local(async move { drop(answer(request, respond, &library).await) });
    }
    Ok(())
}

async fn answer(
    mut request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    library: &Library,
) -> Result<(), h2::Error> {
    while let Some(data) = request.body_mut().data().await {
        let count = data?.len();
        request.body_mut().flow_control().release_capacity(count)?;
    }
    let Ok(Found::Stream(mut asked)) = library.find(request.uri().path()) else {
        let missing = Response::builder().status(404).body(()).unwrap_or_default();
        respond.send_response(missing, true)?;
        return Ok(());
    };
    let mut due = Instant::now();
    if let Some(after) = asked.after.take() {
        due += milliseconds(after);
        sleep_until(due).await;
    }
    let head = Response::builder().header("content-type", "text/event-stream; charset=utf-8").body(());
    let mut stream = respond.send_response(head.unwrap_or_default(), false)?;
    if asked.lag > 0.0 {
        due += milliseconds(asked.lag);
        sleep_until(due).await;
    }
    pieces(&mut asked, &mut stream, due).await
}

async fn pieces(asked: &mut Asked, stream: &mut SendStream<Bytes>, mut due: Instant) -> Result<(), h2::Error> {
    let mut out = Vec::new();
    loop {
        let mut more = asked.write_event(&mut out);
        // A burst comes in frames as large as they may be.
        while more && asked.every.is_none() && out.len() < 16 << 10 {
            more = asked.write_event(&mut out);
        }
        let mut bytes = Bytes::from(std::mem::take(&mut out));
        while !bytes.is_empty() {
            stream.reserve_capacity(bytes.len());
            match std::future::poll_fn(|context| stream.poll_capacity(context)).await {
                Some(room) => stream.send_data(bytes.split_to(room?.min(bytes.len())), false)?,
                None => return Ok(()),
            }
        }
        if !more {
            return stream.send_data(Bytes::new(), true);
        }
        if let Some(every) = asked.every {
            due += milliseconds(every);
            sleep_until(due).await;
        }
    }
}

fn milliseconds(count: f64) -> Duration {
    Duration::from_secs_f64(count / 1000.0)
}
