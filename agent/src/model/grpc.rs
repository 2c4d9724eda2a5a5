//! What makes a request a gRPC call.

use http::{HeaderMap, header::CONTENT_TYPE};

/// `application/grpc`, with or without a codec or parameters (gRPC over HTTP/2, "Requests"). gRPC-Web is plain HTTP here.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    match value.as_bytes().strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';' | b' ')),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let check = |value: &str, expect: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
            assert_eq!(is_grpc(&headers), expect, "{value}");
        };
        check("application/grpc", true);
        check("application/grpc+proto", true);
        check("application/grpc; charset=utf-8", true);
        check("application/grpc ; charset=utf-8", true);
        check("application/grpcx", false);
        check("application/grpc-web", false);
        check("application/json", false);
    }
}
