//! A JSON object written straight into a byte buffer: no tree, no allocation.

use std::net::SocketAddr;

/// One object. Members come in the order in which they are written.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
    /// Bytes of a text that are written.
    most: usize,
    cut: usize,
}

/// Members that are the same for many objects, as they are written.
#[derive(Debug)]
pub(super) struct Members {
    bytes: Box<[u8]>,
    cut: usize,
}

impl Members {
    /// Texts of more than `most` bytes are cut.
    pub(super) fn render(most: usize, members: impl FnOnce(&mut Object<'_>)) -> Self {
        let mut out = Vec::new();
        let mut object = Object {
            out: &mut out,
            empty: true,
            most,
            cut: 0,
        };
        members(&mut object);
        let cut = object.cut;
        Self {
            bytes: out.into(),
            cut,
        }
    }
}

impl<'a> Object<'a> {
    /// Texts of more than `most` bytes are cut.
    pub(super) fn begin(out: &'a mut Vec<u8>, most: usize) -> Self {
        out.push(b'{');
        Self {
            out,
            empty: true,
            most,
            cut: 0,
        }
    }

    /// Says how much was cut, if anything was.
    pub(super) fn end(mut self) {
        if self.cut > 0 {
            self.number("cut_bytes", self.cut as u64);
        }
        self.out.push(b'}');
    }

    /// `name` must need no escaping.
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// At least one.
    pub(super) fn members(&mut self, members: &Members) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.extend_from_slice(&members.bytes);
        self.cut += members.cut;
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        let mut digits = itoa::Buffer::new();
        self.name(name).extend_from_slice(digits.format(value).as_bytes());
    }

    /// Microseconds as milliseconds with three decimals.
    pub(super) fn millis(&mut self, name: &str, micros: u64) {
        let mut digits = itoa::Buffer::new();
        let out = self.name(name);
        out.extend_from_slice(digits.format(micros / 1000).as_bytes());
        let rest = micros % 1000;
        let decimal = |n: u64| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', decimal(rest / 100), decimal(rest / 10), decimal(rest)]);
    }

    pub(super) fn text(&mut self, name: &str, value: &[u8]) {
        let kept = &value[..whole_characters(value, self.most)];
        let cut = value.len() - kept.len();
        self.cut += cut;
        let out = self.name(name);
        out.push(b'"');
        escape(kept, out);
        if cut > 0 {
            out.extend_from_slice("…".as_bytes());
        }
        out.push(b'"');
    }

    /// ASCII that needs no escaping.
    pub(super) fn ascii(&mut self, name: &str, value: &[u8]) {
        let out = self.name(name);
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
    }

    /// Addresses of IPv4 without the formatting of the standard library.
    pub(super) fn address(&mut self, name: &str, value: SocketAddr) {
        let SocketAddr::V4(value) = value else {
            return self.plain(name, value);
        };
        let mut digits = itoa::Buffer::new();
        let out = self.name(name);
        for (octet, mark) in value.ip().octets().into_iter().zip([b'"', b'.', b'.', b'.']) {
            out.push(mark);
            out.extend_from_slice(digits.format(octet).as_bytes());
        }
        out.push(b':');
        out.extend_from_slice(digits.format(value.port()).as_bytes());
        out.push(b'"');
    }

    /// A value's `Display`, whose output must need no escaping (an address, a number).
    pub(super) fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        use std::io::Write;
        let out = self.name(name);
        out.push(b'"');
        // Writing into a vector does not fail.
        let _ = write!(out, "{value}");
        out.push(b'"');
    }
}

/// Where `value` is cut to at most `most` bytes, between two characters.
fn whole_characters(value: &[u8], most: usize) -> usize {
    if value.len() <= most {
        return value.len();
    }
    // A character of UTF-8 has at most three bytes after its first.
    let continues = |at: &usize| value[*at] & 0xc0 == 0x80;
    (most.saturating_sub(3)..=most)
        .rev()
        .find(|at| !continues(at))
        .unwrap_or(most)
}

/// Escapes as RFC 8259 section 7 asks. What is not UTF-8 becomes U+FFFD, so that a line is always valid JSON.
fn escape(value: &[u8], out: &mut Vec<u8>) {
    if value
        .iter()
        .all(|b| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\')
    {
        out.extend_from_slice(value);
        return;
    }
    for part in value.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                c if c < ' ' || c == '\u{7f}' => {
                    let hex = |n: u32| b"0123456789abcdef"[(n & 15) as usize];
                    out.extend_from_slice(&[
                        b'\\',
                        b'u',
                        b'0',
                        b'0',
                        hex(u32::from(c) >> 4),
                        hex(u32::from(c)),
                    ]);
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !part.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_texts_are_cut_and_say_so() {
        let check = |text: &str, most: usize, expect: &str| {
            let mut out = Vec::new();
            let mut object = Object::begin(&mut out, most);
            object.text("t", text.as_bytes());
            object.end();
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        check("abc", 3, r#"{"t":"abc"}"#);
        check("abcd", 3, r#"{"t":"abc…","cut_bytes":1}"#);
        check("aéé", 4, r#"{"t":"aé…","cut_bytes":2}"#);
        check("😀😀", 7, r#"{"t":"😀…","cut_bytes":4}"#);
        check("😀", 0, r#"{"t":"…","cut_bytes":4}"#);
    }

    #[test]
    fn members_are_written_as_if_one_by_one() {
        let known = |o: &mut Object<'_>| {
            o.text("text", b"one \" two");
            o.address("four", "10.0.200.7:8080".parse().unwrap());
            o.address("six", "[fd00::7]:80".parse().unwrap());
            o.ascii("ascii", b"x");
        };
        let (mut by_one, mut at_once) = (Vec::new(), Vec::new());
        let mut object = Object::begin(&mut by_one, 5);
        object.number("n", 1);
        known(&mut object);
        object.end();
        let mut object = Object::begin(&mut at_once, 5);
        object.number("n", 1);
        object.members(&Members::render(5, known));
        object.end();
        assert_eq!(by_one, at_once);
        let expect = r#"{"n":1,"text":"one \"…","four":"10.0.200.7:8080","six":"[fd00::7]:80","ascii":"x","cut_bytes":4}"#;
        assert_eq!(String::from_utf8(at_once).unwrap(), expect);
    }

    proptest! {
        #[test]
        fn any_bytes_become_valid_json_that_says_the_same(bytes: Vec<u8>, micros in 0u64..1 << 50) {
            let mut out = Vec::new();
            let mut object = Object::begin(&mut out, usize::MAX);
            object.text("text", &bytes);
            object.millis("ms", micros);
            object.number("n", micros);
            object.end();
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let invalid = bytes.utf8_chunks().map(|c| c.valid().to_owned() + if c.invalid().is_empty() { "" } else { "\u{fffd}" });
            prop_assert_eq!(value["text"].as_str().unwrap(), invalid.collect::<String>());
            prop_assert_eq!(value["n"].as_u64().unwrap(), micros);
            let mut cut = Vec::new();
            let mut object = Object::begin(&mut cut, bytes.len() / 2);
            object.text("text", &bytes);
            object.end();
            serde_json::from_slice::<serde_json::Value>(&cut).unwrap();
            prop_assert!((value["ms"].as_f64().unwrap() - micros as f64 / 1000.0).abs() < 0.001 + micros as f64 * 1e-12);
        }
    }
}
