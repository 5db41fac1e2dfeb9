//! The load: connections that ask, read, and ask again, all in one thread.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use polling::{Event, Events, PollMode, Poller};

use crate::response::Response;

/// A run in which nothing comes for so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is asked, and how.
struct Plan {
    address: SocketAddr,
    request: Vec<u8>,
    connections: usize,
    requests: usize,
    /// How a stream ends.
    end: String,
    /// Over which time the connections begin.
    spread: Duration,
    /// Whether texts carry the time of their writing.
    stamped: bool,
}

impl Plan {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut next = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
        let address = next("ADDRESS")?.parse()?;
        let file = next("FILE")?;
        let request = std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?;
        let (connections, requests) = (next("CONNECTIONS")?.parse()?, next("REQUESTS")?.parse()?);
        let end = "[DONE]".to_owned();
        let mut plan = Self { address, request, connections, requests, end, spread: Duration::ZERO, stamped: false };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--end" => plan.end = words.next().ok_or("--end needs a text")?,
                "--spread" => {
                    let count: f64 = words.next().ok_or("--spread needs milliseconds")?.parse()?;
                    plan.spread = Duration::try_from_secs_f64(count / 1000.0)?;
                }
                "--stamped" => plan.stamped = true,
                _ => return Err(format!("unknown: {word}").into()),
            }
        }
        Ok(plan)
    }
}

/// One connection and the response it waits for.
struct Line {
    socket: TcpStream,
    response: Response,
    asked: Instant,
}

impl Line {
    fn open(plan: &Plan) -> std::io::Result<Self> {
        let socket = TcpStream::connect(plan.address)?;
        socket.set_nodelay(true)?;
        let mut line = Self { socket, response: Response::new(), asked: Instant::now() };
        line.ask(plan)?;
        line.socket.set_nonblocking(true)?;
        Ok(line)
    }

    /// Sends the request. It is small, and the socket's buffer empty: it fits.
    fn ask(&mut self, plan: &Plan) -> std::io::Result<()> {
        self.response = Response::new();
        self.asked = Instant::now();
        self.socket.write_all(&plan.request)
    }
}

/// What came of it.
#[derive(Default)]
struct Report {
    requests: usize,
    errors: usize,
    error: Option<String>,
    events: usize,
    usages: usize,
    /// Microseconds to the first event and to the end, for each request.
    first: Vec<u128>,
    total: Vec<u128>,
    /// Microseconds from the write in the source to the reading here, for each text.
    late: Vec<u64>,
}

impl Report {
    fn fail(&mut self, message: String) {
        self.errors += 1;
        self.error.get_or_insert(message);
    }

    fn settle(&mut self, line: &Line, end: &str) {
        self.requests += 1;
        let response = &line.response;
        if !response.complete(end) {
            return self.fail(response.said());
        }
        self.events += response.events;
        self.usages += usize::from(response.usage());
        self.first.extend(response.first.map(|first| first.duration_since(line.asked).as_micros()));
        self.total.push(line.asked.elapsed().as_micros());
    }

    fn print(&mut self, seconds: f64) {
        self.late.sort_unstable();
        let place = |hundredths: usize| (self.late.len() * hundredths / 100).min(self.late.len().saturating_sub(1));
        let late: Vec<u64> =
            [50, 99, 100].into_iter().filter_map(|share| self.late.get(place(share)).copied()).collect();
        let error = self.error.as_deref().map_or("null".to_owned(), quoted);
        println!(
            "{{\"requests\": {}, \"errors\": {}, \"error\": {error}, \"seconds\": {seconds:.6}, \"events\": {}, \
             \"usages\": {}, \"late\": {late:?}, \"first\": {:?}, \"total\": {:?}}}",
            self.requests, self.errors, self.events, self.usages, self.first, self.total,
        );
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii_graphic() && byte != b'"' && byte != b'\\' || byte == b' ' => {
                out.push(byte.into());
            }
            _ => {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out + "\""
}

/// Drives the load that these words ask for, and prints what came of it.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let plan = Plan::read(words)?;
    let poller = Poller::new()?;
    let mut lines: HashMap<usize, Line> = HashMap::new();
    let mut report = Report::default();
    let mut events = Events::new();
    let mut buffer = vec![0; 1 << 16];
    let began = Instant::now();
    let (mut opened, mut asked) = (0, 0);
    let first = plan.connections.min(plan.requests);
    let step = plan.spread / u32::try_from(first.max(1))?;
    while report.requests < plan.requests {
        let mut timeout = PATIENCE;
        while opened < first {
            let due = step * u32::try_from(opened)?;
            if let Some(left) = due.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
                timeout = left;
                break;
            }
            open(&plan, &poller, &mut lines, opened)?;
            opened += 1;
            asked += 1;
        }
        events.clear();
        poller.wait(&mut events, Some(timeout))?;
        if events.is_empty() && timeout == PATIENCE {
            report.fail(format!("nothing came for {} s", PATIENCE.as_secs()));
            break;
        }
        for event in events.iter() {
            let Some(line) = lines.get_mut(&event.key) else { continue };
            let over = match line.socket.read(&mut buffer) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
                Err(error) => Err(error.to_string()),
                Ok(0) => Err("the connection was closed".to_owned()),
                Ok(count) => line.response.feed(buffer.get(..count).unwrap_or_default(), &mut |stamp| {
                    if plan.stamped {
                        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                        report.late.push(u64::try_from(now).unwrap_or_default().saturating_sub(stamp) / 1000);
                    }
                }),
            };
            let closed = match over {
                Ok(false) => continue,
                Ok(true) => {
                    report.settle(line, &plan.end);
                    line.response.closes
                }
                Err(message) => {
                    report.requests += 1;
                    report.fail(message);
                    true
                }
            };
            if closed || asked == plan.requests {
                poller.delete(&line.socket)?;
                lines.remove(&event.key);
            }
            if asked < plan.requests {
                asked += 1;
                match lines.get_mut(&event.key) {
                    Some(line) => line.ask(&plan)?,
                    None => open(&plan, &poller, &mut lines, event.key)?,
                }
            }
        }
    }
    report.print(began.elapsed().as_secs_f64());
    Ok(())
}

fn open(plan: &Plan, poller: &Poller, lines: &mut HashMap<usize, Line>, key: usize) -> std::io::Result<()> {
    let line = Line::open(plan)?;
    // SAFETY: it is taken out of the poller before it is dropped, or lives as long as the process.
    unsafe { poller.add_with_mode(&line.socket, Event::readable(key), PollMode::Level)? };
    lines.insert(key, line);
    Ok(())
}
