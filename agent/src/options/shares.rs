//! What the pods of a node may hold of the engine.

use clap::Args;

/// Bounds for all pods together, and for one. A pod may hold as much as it leaves free for the others; a bound for one
/// pod is below that.
#[derive(Clone, Debug, Args)]
pub struct ShareArgs {
    /// Memory for the connections and streams of all pods [default: 60 % of the agent's memory limit, else 1Gi]
    #[arg(long, value_name = "BYTES", env = "DERNY_MEMORY_BUDGET", value_parser = bytes)]
    pub memory_budget: Option<u64>,

    /// Connections of all pods that are accepted at a time [default: as many as open files allow]
    #[arg(long, value_name = "N", env = "DERNY_MAX_CONNECTIONS", value_parser = at_least_one)]
    pub max_connections: Option<u64>,

    /// HTTP/2 streams of all pods that are open at a time
    #[arg(long, value_name = "N", env = "DERNY_MAX_STREAMS", default_value_t = 131_072, value_parser = at_least_one)]
    pub max_streams: u64,

    /// The most memory for one pod [default: what it leaves free for others]
    #[arg(long, value_name = "BYTES", env = "DERNY_POD_MEMORY", value_parser = bytes)]
    pub pod_memory: Option<u64>,

    /// The most connections of one pod [default: as many as it leaves free for others]
    #[arg(long, value_name = "N", env = "DERNY_POD_CONNECTIONS", value_parser = at_least_one)]
    pub pod_connections: Option<u64>,

    /// The most HTTP/2 streams of one pod [default: as many as it leaves free for others]
    #[arg(long, value_name = "N", env = "DERNY_POD_STREAMS", value_parser = at_least_one)]
    pub pod_streams: Option<u64>,

    /// The most series of metrics that one pod's calls make; further calls are counted under `other`
    #[arg(long, value_name = "N", env = "DERNY_POD_SERIES", default_value_t = 1_000, value_parser = at_least_one)]
    pub pod_series: u64,
}

fn at_least_one(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// As Kubernetes writes it: 1073741824, 1Gi or 512Mi.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" => Some(1),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1_u64 << 30),
        _ => None,
    };
    let number = digits.parse::<u64>().ok().zip(factor);
    let bytes = number.and_then(|(number, factor)| number.checked_mul(factor));
    match bytes {
        Some(bytes) if bytes >= 1 << 20 => Ok(bytes),
        Some(_) => Err("too little: use 1Mi at least".to_owned()),
        None => Err("not a number of bytes: write it as 1073741824, 512Mi or 1Gi".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_in_kubernetes() {
        assert_eq!(bytes("1048576"), Ok(1 << 20));
        assert_eq!(bytes("512Mi"), Ok(512 << 20));
        assert_eq!(bytes("2Gi"), Ok(2 << 30));
        for bad in ["", "Mi", "1", "1023Ki", "1GB", "-1Gi", "99999999999Gi"] {
            bytes(bad).expect_err(bad);
        }
    }
}
