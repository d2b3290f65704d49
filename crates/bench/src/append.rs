//! The floor under every durable write: a bare loop that appends what is waiting to one file,
//! flushes it once, and answers.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

/// Appends waiting at most.
const QUEUE_MAX: usize = 4096;

type Waiting = (Arc<[u8]>, oneshot::Sender<()>);

/// A file that is appended to in groups.
#[derive(Debug)]
pub struct Appender {
    waiting: Option<mpsc::Sender<Waiting>>,
    writer: Option<JoinHandle<io::Result<()>>>,
}

impl Appender {
    /// Begins a new file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::create_new(path)?;
        let (waiting, receiver) = mpsc::channel(QUEUE_MAX);
        let writer = std::thread::Builder::new().spawn(move || write(file, receiver))?;
        Ok(Self { waiting: Some(waiting), writer: Some(writer) })
    }

    /// Appends, and returns once it is on the disk.
    pub async fn append(&self, bytes: Arc<[u8]>) -> io::Result<()> {
        let ended = || io::Error::other("the appending thread has ended");
        let (done, answered) = oneshot::channel();
        let waiting = self.waiting.as_ref().ok_or_else(ended)?;
        waiting.send((bytes, done)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        drop(self.waiting.take());
        if let Some(writer) = self.writer.take() {
            // An append that failed was not answered; whoever waited for it knows.
            let _ = writer.join();
        }
    }
}

fn write(mut file: File, mut receiver: mpsc::Receiver<Waiting>) -> io::Result<()> {
    let (mut bytes, mut answers) = (Vec::new(), Vec::new());
    while let Some(first) = receiver.blocking_recv() {
        let mut next = Some(first);
        while let Some((appended, done)) = next {
            bytes.extend_from_slice(&appended);
            answers.push(done);
            next = receiver.try_recv().ok();
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        bytes.clear();
        for done in answers.drain(..) {
            // Whoever asked may be gone.
            let _ = done.send(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_answered_is_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let appender = Appender::create(&path).expect("a file");
        for _ in 0..3 {
            appender.append(Arc::from(*b"abc")).await.expect("an answer");
        }
        assert_eq!(std::fs::read(&path).expect("the file"), b"abcabcabc");
    }
}
