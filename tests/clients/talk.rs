//! A TCP conversation, step by step.
//!
//! | step | what happens |
//! |---|---|
//! | `send:TEXT` | writes it; `\r`, `\n`, `\0` and `\\` stand for themselves, `\xNN` for a byte |
//! | `repeat:N:TEXT` | writes it N times |
//! | `expect:TEXT` | reads until TEXT has been received after what earlier steps expected |
//! | `shut` | ends the sending direction |
//! | `reset` | ends both with a TCP reset; the last step |
//! | `end` | reads to the end, which must be an orderly one |
//! | `broken` | reads to the end, which must be a reset |
//! | `refused` | writes until that fails |
//! | `closed` | reads to the end, orderly or reset |
//! | `hold` | waits until standard input ends |

use std::{
    io::{ErrorKind, Read, Write, stdin, stdout},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use derny_tests::observe::now;
use socket2::SockRef;

/// One read may wait so long.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Options {
    target: SocketAddr,
    #[arg(required = true, allow_hyphen_values = true)]
    steps: Vec<String>,
}

struct Talk {
    stream: TcpStream,
    received: Vec<u8>,
    /// Where the next expected text may begin.
    seen: usize,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let stream =
        TcpStream::connect(options.target).with_context(|| format!("connecting to {}", options.target))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut talk = Talk {
        stream,
        received: Vec::new(),
        seen: 0,
    };
    for step in &options.steps {
        let done = talk.step(step).with_context(|| {
            let received = String::from_utf8_lossy(&talk.received);
            format!("step {step:?} after receiving {received:?}")
        });
        if done.is_err() {
            stdout().write_all(&talk.received)?;
        }
        done?;
    }
    stdout().write_all(&talk.received).context("printing")
}

impl Talk {
    fn step(&mut self, step: &str) -> Result<()> {
        match step.split_once(':').unwrap_or((step, "")) {
            ("send", text) => self.stream.write_all(&unescape(text)?)?,
            ("repeat", rest) => {
                let (times, text) = rest.split_once(':').context("repeat:N:TEXT")?;
                let bytes = unescape(text)?.repeat(times.parse()?);
                self.stream.write_all(&bytes)?;
            }
            ("expect", text) => self.expect(&unescape(text)?)?,
            ("shut", "") => self.stream.shutdown(Shutdown::Write)?,
            ("reset", "") => {
                // What was sent before must have arrived: a reset takes back what has not.
                self.acknowledged()?;
                SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
            }
            ("end", "") => while self.read()? > 0 {},
            ("broken", "") => loop {
                match self.read() {
                    Ok(0) => bail!("an orderly end"),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                    Err(error) => return Err(error.into()),
                }
            },
            ("refused", "") => {
                let deadline = now() + PATIENCE;
                while self.stream.write_all(b"?").is_ok() {
                    ensure!(now() < deadline, "nobody minds what is written");
                    std::thread::yield_now();
                }
            }
            ("closed", "") => loop {
                match self.read() {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                    Err(error) => return Err(error.into()),
                }
            },
            ("hold", "") => {
                // Whatever comes, only the end counts.
                let _ = stdin().read_to_end(&mut Vec::new())?;
            }
            _ => bail!("no such step"),
        }
        Ok(())
    }

    /// Waits until the other side's kernel has taken all that was sent.
    fn acknowledged(&self) -> Result<()> {
        let deadline = now() + PATIENCE;
        loop {
            let mut unsent: libc::c_int = 0;
            // SAFETY: the descriptor is open, and the kernel writes one int (tcp(7), SIOCOUTQ).
            let result = unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut unsent) };
            ensure!(result == 0, std::io::Error::last_os_error());
            if unsent == 0 {
                return Ok(());
            }
            ensure!(now() < deadline, "{unsent} bytes were not acknowledged");
            std::thread::yield_now();
        }
    }

    fn expect(&mut self, text: &[u8]) -> Result<()> {
        loop {
            let rest = &self.received[self.seen..];
            if let Some(at) = rest.windows(text.len()).position(|window| window == text) {
                self.seen += at + text.len();
                return Ok(());
            }
            ensure!(self.read()? > 0, "the connection ended before that");
        }
    }

    fn read(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes)?;
        self.received.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match chars.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('0') => 0,
            Some('\\') => b'\\',
            Some('x') => u8::from_str_radix(&chars.by_ref().take(2).collect::<String>(), 16)?,
            other => bail!("\\{other:?} stands for nothing"),
        });
    }
    Ok(bytes)
}
