//! Why a command did not end well, and the exit code that says so.

use crate::admin::ClientError;

/// Why a command did not end well. The exit codes are those of sysexits.h where it has one.
#[derive(Debug)]
pub(super) enum Failure {
    /// What was looked at is not as it should be; the command has said so itself.
    Finding,
    /// It could not be done.
    Error(anyhow::Error),
    /// `EX_USAGE`
    Usage(anyhow::Error),
    /// `EX_UNAVAILABLE`
    Unreachable(ClientError),
}

impl Failure {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Finding | Self::Error(_) => 1,
            Self::Usage(_) => 64,
            Self::Unreachable(_) => 69,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Question(_) => Self::Error(error.into()),
            other => Self::Unreachable(other),
        }
    }
}
