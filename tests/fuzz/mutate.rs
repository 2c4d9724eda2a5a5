//! New inputs from old ones.

/// Bytes that mean something to one parser or another.
const WORDS: [&[u8]; 24] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"HTTP/1.1",
    b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n",
    b"0\r\n\r\n",
    b"connection: upgrade\r\n",
    b"expect: 100-continue\r\n",
    b"grpc-timeout: 1S\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    // Frames of HTTP/2: SETTINGS, PING, RST_STREAM, WINDOW_UPDATE, GOAWAY, empty DATA, empty CONTINUATION.
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\0\x08\x06\0\0\0\0\x0012345678",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\0\0\0\0\x01\0\0\0\x01",
    b"\0\0\0\x09\x04\0\0\0\x01",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"{\"a\":[{}]}",
    b"null",
    b"99999999999999999999",
    b"\xe2\x82\xac",
];

/// A mutation of one of `corpus`, which is not empty.
pub(super) fn one_of(corpus: &[Vec<u8>], rng: &mut fastrand::Rng, longest: usize) -> Vec<u8> {
    let mut input = corpus[rng.usize(..corpus.len())].clone();
    for _ in 0..rng.usize(1..6) {
        mutate(&mut input, corpus, rng);
    }
    input.truncate(longest);
    input
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut fastrand::Rng) {
    let place = rng.usize(..=input.len());
    match rng.u8(..8) {
        0 if place < input.len() => input[place] ^= 1 << rng.u8(..8),
        1 if place < input.len() => input[place] = [0, 1, 0x7f, 0x80, 0xff, rng.u8(..)][rng.usize(..6)],
        2 => drop(input.splice(place..place, WORDS[rng.usize(..WORDS.len())].iter().copied())),
        3 => drop(input.drain(range(input.len(), rng))),
        4 => {
            let copied = input[range(input.len(), rng)].to_vec();
            let times = rng.usize(1..4);
            drop(input.splice(place..place, copied.repeat(times)));
        }
        5 => {
            let other = &corpus[rng.usize(..corpus.len())];
            let part = other[range(other.len(), rng)].to_vec();
            drop(input.splice(place..place, part));
        }
        // A number of the text becomes another.
        6 => {
            if let Some(digit) = (place..input.len()).find(|at| input[*at].is_ascii_digit()) {
                let number = rng.u64(..) >> rng.u32(..64);
                drop(input.splice(digit..=digit, number.to_string().into_bytes()));
            }
        }
        _ => input.truncate(place),
    }
}

fn range(len: usize, rng: &mut fastrand::Rng) -> std::ops::Range<usize> {
    let begin = rng.usize(..=len);
    let end = rng.usize(begin..=len);
    begin..end
}
