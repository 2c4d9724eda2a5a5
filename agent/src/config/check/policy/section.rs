//! One object of a policy: where it stands, and how its fields are read.

use std::{fmt, ops::RangeInclusive, time::Duration};

use http::HeaderName;

use super::super::words;
use crate::config::error::{At, Faults};

/// Reads fields. `None` stands for what is not said, and for what is wrong and now stands among the faults.
pub(super) struct Section<'a, 'f> {
    at: At<'a>,
    faults: &'f mut Faults,
}

impl<'a, 'f> Section<'a, 'f> {
    pub(super) fn new(at: At<'a>, faults: &'f mut Faults) -> Self {
        Self { at, faults }
    }

    /// Reads an object within this one.
    pub(super) fn inner<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Section<'_, '_>) -> T) -> T {
        read(&mut Section {
            at: self.at.field(name),
            faults: self.faults,
        })
    }

    pub(super) fn duration(
        &mut self,
        name: &'static str,
        text: &Option<String>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        words::within(text.as_deref()?, range, self.at.field(name), self.faults)
    }

    /// `Some(None)`: set to zero, which means none.
    pub(super) fn optional(
        &mut self,
        name: &'static str,
        text: &Option<String>,
        range: RangeInclusive<Duration>,
    ) -> Option<Option<Duration>> {
        words::within_or_none(text.as_deref()?, range, self.at.field(name), self.faults)
    }

    pub(super) fn number(
        &mut self,
        name: &'static str,
        number: Option<u64>,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        words::number(number?, range, self.at.field(name), self.faults)
    }

    pub(super) fn percent(
        &mut self,
        name: &'static str,
        number: Option<u64>,
        range: RangeInclusive<u8>,
    ) -> Option<u8> {
        let wide = u32::from(*range.start())..=u32::from(*range.end());
        self.number(name, number, wide)
            .and_then(|percent| u8::try_from(percent).ok())
    }

    /// Each item of a list by `read`, which says what is wrong with it and what to write instead.
    pub(super) fn items<T, R>(
        &mut self,
        name: &'static str,
        items: &[T],
        read: impl Fn(&T) -> Result<R, Bad>,
    ) -> Vec<R> {
        let at = self.at.field(name);
        let mut good = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match read(item) {
                Ok(value) => good.push(value),
                Err(bad) => self.faults.add(at.item(index), bad.value, bad.fault, bad.remedy),
            }
        }
        good
    }

    pub(super) fn header(&mut self, name: &'static str, text: &str) -> Option<HeaderName> {
        header(text)
            .map_err(|bad| self.fault(name, bad.value, bad.fault, bad.remedy))
            .ok()
    }

    pub(super) fn fault(
        &mut self,
        name: &'static str,
        value: impl fmt::Display,
        fault: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.faults.add(self.at.field(name), value, fault, remedy);
    }

    /// A fault of the object as a whole.
    pub(super) fn own_fault(&mut self, value: &str, fault: &str, remedy: &str) {
        self.faults.add(self.at, value, fault, remedy);
    }
}

/// What is wrong with one item of a list.
pub(super) struct Bad {
    pub(super) value: String,
    pub(super) fault: &'static str,
    pub(super) remedy: String,
}

impl Bad {
    pub(super) fn new(value: impl fmt::Display, fault: &'static str, remedy: impl Into<String>) -> Self {
        Self {
            value: value.to_string(),
            fault,
            remedy: remedy.into(),
        }
    }
}

/// A header's name (RFC 9110, 5.1); kept in lower case, as names are compared without case.
pub(super) fn header(text: &str) -> Result<HeaderName, Bad> {
    text.parse().map_err(|_| {
        Bad::new(
            text,
            "is not a header's name",
            "use letters, digits and -, such as x-user-id",
        )
    })
}
