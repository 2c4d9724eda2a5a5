//! Where a caller's HTTP/2 frames begin and end (RFC 9113 section 4.1), without a look at what they say. A header
//! block that is not finished stops the whole connection (section 4.3), and h2 waits for its end for ever.

/// What a client sends before its first frame (section 3.4).
const PREFACE: usize = 24;
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the bytes of a connection from its first.
#[derive(Debug)]
pub(super) struct Frames {
    at: At,
    /// A header block has begun and is not finished.
    in_block: bool,
    /// Frames, or header blocks, that came whole.
    whole: u64,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Preface { left: usize },
    Header { bytes: [u8; HEADER], have: usize },
    Payload { kind: u8, left: usize },
}

const BOUNDARY: At = At::Header {
    bytes: [0; HEADER],
    have: 0,
};

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            at: At::Preface { left: PREFACE },
            in_block: false,
            whole: 0,
        }
    }

    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    /// Whether something has begun that the peer must finish before anything else can follow. A piece of a body is
    /// not: it is the stream's affair.
    pub(super) fn is_midway(&self) -> bool {
        self.in_block
            || match self.at {
                At::Preface { .. } => true,
                At::Header { have, .. } => have > 0,
                At::Payload { kind, .. } => kind != DATA,
            }
    }

    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            match &mut self.at {
                At::Preface { left } => {
                    let count = bytes.len().min(*left);
                    *left -= count;
                    bytes = &bytes[count..];
                    if *left == 0 {
                        self.at = BOUNDARY;
                    }
                }
                At::Header { bytes: header, have } => {
                    header[*have] = *first;
                    *have += 1;
                    bytes = &bytes[1..];
                    if *have == HEADER {
                        let header = *header;
                        self.begin(header);
                    }
                }
                At::Payload { left, .. } => {
                    let count = bytes.len().min(*left);
                    *left -= count;
                    bytes = &bytes[count..];
                    if *left == 0 {
                        self.end();
                    }
                }
            }
        }
    }

    fn begin(&mut self, header: [u8; HEADER]) {
        let [high, middle, low, kind, flags, ..] = header;
        let left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if kind == HEADERS || kind == CONTINUATION {
            self.in_block = flags & END_HEADERS == 0;
        }
        if left == 0 {
            self.end();
        } else {
            self.at = At::Payload { kind, left };
        }
    }

    fn end(&mut self) {
        // The frames of one header block are one: its peer cannot gain time by cutting it up.
        if !self.in_block {
            self.whole += 1;
        }
        self.at = BOUNDARY;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = vec![size[1], size[2], size[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(HEADER + length, 0xff);
        bytes
    }

    fn after(bytes: &[u8]) -> Frames {
        let mut frames = Frames::new();
        frames.pass(&[0; PREFACE]);
        frames.pass(bytes);
        frames
    }

    #[test]
    fn an_unfinished_header_block_is_midway() {
        let check = |bytes: &[u8], midway: bool| assert_eq!(after(bytes).is_midway(), midway, "{bytes:?}");
        check(&[], false);
        check(&frame(HEADERS, END_HEADERS, 20), false);
        check(&frame(HEADERS, 0, 20), true);
        check(&[frame(HEADERS, 0, 20), frame(CONTINUATION, 0, 0)].concat(), true);
        let finished = [frame(HEADERS, 0, 20), frame(CONTINUATION, END_HEADERS, 3)].concat();
        check(&finished, false);
        check(&frame(HEADERS, END_HEADERS, 20)[..28], true);
        check(&frame(4, 0, 6)[..5], true);
        check(&frame(DATA, 0, 1000)[..500], false);
        assert!(Frames::new().is_midway(), "the preface");
    }

    proptest! {
        #[test]
        fn frames_are_counted_however_they_are_cut(
            lengths in prop::collection::vec(0usize..40_000, 0..12),
            cut in 1usize..20_000,
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| frame(DATA, 0, *length)).collect();
            let mut frames = after(&[]);
            bytes.chunks(cut).for_each(|chunk| frames.pass(chunk));
            prop_assert_eq!(frames.whole(), lengths.len() as u64);
            prop_assert!(!frames.is_midway());
        }

        #[test]
        fn any_bytes_pass(bytes: Vec<u8>) {
            after(&bytes);
        }
    }
}
