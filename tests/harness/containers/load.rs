use std::{
    fs::File,
    io::{BufRead, BufReader},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};

use super::container::{Container, Stream, said};
use crate::{
    load::{Client, Load},
    observe::{eventually, now, pause_until},
};

/// How long the next look at a log is put off.
const POLL: Duration = Duration::from_millis(5);
/// A client that was told to end does so within this, or is killed.
const GRACE: Duration = Duration::from_secs(5);

impl Load {
    /// The calls of a client that is the container's program: of `grpc_load.py` and its like.
    pub fn in_container(container: &Container) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let lines = Lines {
            log: BufReader::new(File::open(container.log_path())?),
            line: String::new(),
            ended: Arc::clone(&ended),
        };
        let client = Contained {
            container: container.clone(),
            ended,
        };
        Ok(Self::of(client, lines))
    }
}

#[derive(Debug)]
struct Contained {
    container: Container,
    ended: Arc<AtomicBool>,
}

impl Client for Contained {
    fn terminate(&mut self) -> Result<()> {
        self.container.stop(GRACE)
    }

    fn wait(&mut self, deadline: Duration) -> Result<bool> {
        let mut code = None;
        eventually("a client in a container ends", deadline, || {
            code = self.container.exit_code().unwrap_or_default();
            code.is_some()
        })?;
        // The runtime has written all when it says so.
        self.ended.store(true, Ordering::Release);
        let failed = || self.container.said(Stream::Error);
        ensure!(code == Some(0), "it ended with {code:?}: {}", failed());
        Ok(true)
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// What a container says, line by line, as the runtime writes it down.
struct Lines {
    log: BufReader<File>,
    /// Read so far, up to the end of a line.
    line: String,
    /// Nothing will be added.
    ended: Arc<AtomicBool>,
}

impl Iterator for Lines {
    type Item = std::io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let ended = self.ended.load(Ordering::Acquire);
            match self.log.read_line(&mut self.line) {
                Err(error) => return Some(Err(error)),
                Ok(_) if self.line.ends_with('\n') => {
                    let (stream, line) = said(self.line.trim_end());
                    let line = (stream == Stream::Out).then(|| line.to_owned());
                    self.line.clear();
                    if let Some(line) = line {
                        return Some(Ok(line));
                    }
                }
                Ok(_) if ended => return None,
                Ok(_) => pause_until(now() + POLL),
            }
        }
    }
}
