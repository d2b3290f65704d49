//! Servers of releases that a store can't be kept on. They only say what they are: nothing else is
//! asked of them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::refused;

/// Starts a server that serves each connection so; ends with the process. Says where it listens.
fn serve(talk: fn(TcpStream) -> io::Result<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a port").port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || talk(connection));
        }
    });
    port
}

/// Answers as Redis 6.0 does: commands are lists of strings.
fn redis(mut connection: TcpStream) -> io::Result<()> {
    let mut input = BufReader::new(connection.try_clone()?);
    while let Some(count) = number(&mut input, '*')? {
        let mut words = Vec::new();
        for _ in 0..count {
            let bytes = number(&mut input, '$')?.unwrap_or(0);
            let mut word = vec![0; bytes + 2];
            input.read_exact(&mut word)?;
            words.push(String::from_utf8_lossy(&word[..bytes]).to_ascii_lowercase());
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let reply = match words[..] {
            ["hello", ..] => "%1\r\n+server\r\n+redis\r\n".to_owned(),
            ["info", "server"] => bulk("redis_version:6.0.16\r\nredis_mode:standalone\r\n"),
            ["info", "replication"] => bulk("role:master\r\nconnected_slaves:0\r\n"),
            ["info", "memory"] => bulk("maxmemory_policy:noeviction\r\n"),
            ["config", ..] => "%0\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        connection.write_all(reply.as_bytes())?;
    }
    Ok(())
}

/// The number of a line that begins with a mark; none at the end.
fn number(input: &mut impl BufRead, mark: char) -> io::Result<Option<usize>> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line.trim().strip_prefix(mark).and_then(|digits| digits.parse().ok()))
}

/// Answers as PostgreSQL 12 does: whatever the question, with what a node asks for first.
fn postgres(mut connection: TcpStream) -> io::Result<()> {
    // TLS may be asked for, which there is none of; then comes the startup message.
    while startup(&mut connection)? == SSL_REQUEST {
        connection.write_all(b"N")?;
    }
    let ready = message(b'Z', b"I");
    connection.write_all(&[message(b'R', &[0; 4]), ready.clone()].concat())?;
    loop {
        let mut head = [0; 5];
        connection.read_exact(&mut head)?;
        body(&mut connection, &head[1..])?;
        match head[0] {
            // The end of a question.
            b'S' => connection.write_all(&[row(), ready.clone()].concat())?,
            b'X' => return Ok(()),
            _ => {}
        }
    }
}

const SSL_REQUEST: u32 = 80_877_103;
/// Object ids of types.
const INT4: u32 = 23;
const TEXT: u32 = 25;

fn startup(connection: &mut TcpStream) -> io::Result<u32> {
    let mut length = [0; 4];
    connection.read_exact(&mut length)?;
    let sent = body(connection, &length)?;
    Ok(sent.first_chunk().map_or(0, |code| u32::from_be_bytes(*code)))
}

/// What follows a length, which counts itself.
fn body(connection: &mut TcpStream, length: &[u8]) -> io::Result<Vec<u8>> {
    let length = length.first_chunk().map_or(4, |length| u32::from_be_bytes(*length));
    let mut body = vec![0; usize::try_from(length).expect("a length") - 4];
    connection.read_exact(&mut body)?;
    Ok(body)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a length").to_be_bytes();
    [&[kind], &length[..], body].concat()
}

/// The answer to a question of whatever kind: its columns and its one row.
fn row() -> Vec<u8> {
    let texts = ["12.22", "UTF8", "read committed", "app", "on", "on"];
    let mut values = vec![(INT4, 120_022_u32.to_be_bytes().to_vec())];
    values.extend(texts.map(|text| (TEXT, text.as_bytes().to_vec())));
    let count = u16::try_from(values.len()).expect("few").to_be_bytes();
    let (mut columns, mut fields) = (count.to_vec(), count.to_vec());
    for (kind, value) in &values {
        // A name, no table, its type, any size, and the binary format.
        columns.extend([b'c', 0, 0, 0, 0, 0, 0, 0]);
        columns.extend(kind.to_be_bytes());
        columns.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 1]);
        fields.extend(u32::try_from(value.len()).expect("short").to_be_bytes());
        fields.extend(value);
    }
    let parsed_and_bound = [message(b'1', &[]), message(b'2', &[])].concat();
    let told = [message(b'T', &columns), message(b'D', &fields), message(b'C', b"SELECT 1\0")];
    [parsed_and_bound, told.concat()].concat()
}

#[test]
fn a_server_of_an_old_release_is_one_plain_sentence_and_exit_code_3() {
    let port = serve(redis);
    let said = refused(&[("store.url", &format!("redis://127.0.0.1:{port}"))]);
    assert!(said.contains("6.0.16") && said.contains("6.2"), "{said}");
    let port = serve(postgres);
    let url = format!("postgres://app:hush@127.0.0.1:{port}/app?sslmode=disable");
    let said = refused(&[("store.url", &url)]);
    assert!(said.contains("PostgreSQL 12.22; at least version 13 is needed"), "{said}");
}
