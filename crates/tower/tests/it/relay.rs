//! What stands between an application and its authority, and does as it is told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// How the relay misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    Nothing,
    /// The stream of revocations can't be opened.
    NoStream,
    /// The authority's clock is a hundred years behind.
    WrongClock,
}

/// A relay to a server, one request for each connection.
pub struct Relay {
    pub url: String,
    /// Questions about a credential so far.
    pub asked: Arc<AtomicUsize>,
    /// Whether anything is done wrong.
    pub faulty: Arc<AtomicBool>,
    /// What the authority was told of sessions in use.
    pub touched: Arc<Mutex<Vec<String>>>,
}

impl Relay {
    pub fn to(address: &str, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (asked, faulty) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
        let touched = Arc::new(Mutex::new(Vec::new()));
        let (address, broken) = (address.to_owned(), faulty.clone());
        let (count, told) = (asked.clone(), touched.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (address, broken) = (address.clone(), broken.clone());
                let (count, told) = (count.clone(), told.clone());
                // Whoever goes away first ends it; there is nobody to tell.
                thread::spawn(move || {
                    let wrong = broken.load(Ordering::SeqCst).then_some(fault);
                    let _ = pass_on(client, &address, &count, &told, wrong);
                });
            }
        });
        Self { url, asked, faulty, touched }
    }

    /// How many questions about a credential `ask` has caused.
    pub async fn counted(&self, ask: impl Future<Output = ()>) -> usize {
        let before = self.asked.load(Ordering::SeqCst);
        ask.await;
        self.asked.load(Ordering::SeqCst) - before
    }
}

fn pass_on(
    mut client: TcpStream,
    address: &str,
    count: &AtomicUsize,
    touched: &Mutex<Vec<String>>,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let (head, body) = read_request(&mut client)?;
    let line = head.lines().next().unwrap_or_default();
    if line.contains("/admin/v1/sessions/verify") {
        count.fetch_add(1, Ordering::SeqCst);
    }
    if line.contains("/admin/v1/sessions/touch") {
        let text = String::from_utf8_lossy(&body).into_owned();
        touched.lock().expect("unpoisoned").push(text);
    }
    if fault == Some(Fault::NoStream) && line.contains("/revocations/stream") {
        let refusal = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(refusal.as_bytes());
    }
    let mut server = TcpStream::connect(address)?;
    // The authority knows itself by its own name only, and ends the answer with the connection.
    let kept = head.lines().skip(1).filter(|line| {
        let name = line.split(':').next().unwrap_or_default();
        !name.eq_ignore_ascii_case("host") && !name.eq_ignore_ascii_case("connection")
    });
    let own = [format!("Host: {address}"), "Connection: close".to_owned()];
    let lines: Vec<&str> =
        [line].into_iter().chain(own.iter().map(String::as_str)).chain(kept).collect();
    server.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes())?;
    server.write_all(&body)?;
    let mut part = [0; 64 * 1024];
    loop {
        match server.read(&mut part)? {
            0 => return Ok(()),
            length if fault == Some(Fault::WrongClock) => {
                let text = String::from_utf8_lossy(&part[..length]);
                client.write_all(text.replace("{\"at\":\"20", "{\"at\":\"19").as_bytes())?;
            }
            length => client.write_all(&part[..length])?,
        }
    }
}

fn read_request(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut byte) = (Vec::new(), [0; 1]);
    while !bytes.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body)?;
    Ok((head, body))
}
