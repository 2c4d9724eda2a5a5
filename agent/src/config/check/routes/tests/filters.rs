//! Faults of filters.

use super::{check, http};

#[test]
fn filters_that_contradict_are_refused() {
    let filter = |filters: &str| http(&format!("[{{filters: [{filters}]}}]"));
    let redirect = "{type: RequestRedirect, requestRedirect: {statusCode: 302}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: h}}";
    check(
        &filter(&format!("{redirect}, {rewrite}")),
        &[
            "routes[0].rules[0].filters: `URLRewrite` stands beside RequestRedirect: keep one; a redirect rewrites by \
           its own path and hostname",
        ],
    );
    check(
        &filter(&format!("{rewrite}, {rewrite}")),
        &[
            "routes[0].rules[0].filters[1].type: `URLRewrite` is there already: write what it does in one filter",
        ],
    );
    check(
        &http(&format!(
            "[{{filters: [{redirect}], backendRefs: [{{name: v2, port: 80}}]}}]"
        )),
        &[
            "routes[0].rules[0].backendRefs: `1` backends get nothing: remove them, or the RequestRedirect filter",
        ],
    );
    check(
        &filter("{type: URLRewrite, requestRedirect: {port: 1}}, {type: ExtensionRef}"),
        &[
            "routes[0].rules[0].filters[0]: `requestRedirect` does not belong to type URLRewrite: remove it, or \
             set type: RequestRedirect",
            "routes[0].rules[0].filters[0]: `URLRewrite` does not say what to do: add `urlRewrite`",
            "routes[0].rules[0].filters[1].type: `ExtensionRef` is not known: use one of RequestHeaderModifier, \
             ResponseHeaderModifier, URLRewrite, RequestRedirect, RequestMirror, CORS",
        ],
    );
    check(
        &filter(
            "{type: RequestRedirect, requestRedirect: {scheme: ftp, hostname: A, port: 0, statusCode: 304}}",
        ),
        &[
            "routes[0].rules[0].filters[0].requestRedirect.scheme: `ftp` is not known: use one of http, https",
            "routes[0].rules[0].filters[0].requestRedirect.hostname: `A` is not a host name: use dot-separated \
             labels of a-z, 0-9 and -, without a port",
            "routes[0].rules[0].filters[0].requestRedirect.port: `0` is not a port: use 1 to 65535",
            "routes[0].rules[0].filters[0].requestRedirect.statusCode: `304` is not a redirect: use one of 301, \
             302, 303, 307, 308",
        ],
    );
    check(
        &filter(
            "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: h}], \
             remove: [Content-Length]}}",
        ),
        &[
            "routes[0].rules[0].filters[0].requestHeaderModifier.set[0].name: `Host` belongs to the connection and \
             cannot be changed: use a URLRewrite filter with a hostname",
            "routes[0].rules[0].filters[0].requestHeaderModifier.remove[0]: `Content-Length` belongs to the \
             connection and cannot be changed: remove it",
        ],
    );
    let prefix = "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}";
    let exact = "matches: [{path: {type: Exact, value: /a}}]";
    check(
        &http(&format!("[{{{exact}, filters: [{prefix}]}}]")),
        &[
            "routes[0].rules[0].filters[0].urlRewrite.path.replacePrefixMatch: `/x` has no single prefix to replace: \
           give the rule exactly one match, with a path of type PathPrefix",
        ],
    );
}

#[test]
fn faults_of_cors_are_told() {
    check(
        &http(
            "[{filters: [{type: CORS, cors: {allowOrigins: ['*', 'http://a'], allowMethods: [GET, get], \
             allowHeaders: ['a b'], maxAge: 0}}]}]",
        ),
        &[
            "routes[0].rules[0].filters[0].cors.maxAge: `0` is out of range: use 1 to 2147483647",
            "routes[0].rules[0].filters[0].cors.allowOrigins[0]: `*` stands beside others: keep it alone, or remove it",
            "routes[0].rules[0].filters[0].cors.allowMethods[1]: `get` is not known: use one of GET, HEAD, POST, PUT, \
             DELETE, CONNECT, OPTIONS, TRACE, PATCH",
            "routes[0].rules[0].filters[0].cors.allowHeaders[0]: `a b` is not a header name: use letters, digits and -; \
             the path and the method have fields of their own",
        ],
    );
    check(
        &http("[{filters: [{type: CORS, cors: {allowOrigins: [example.com, 'ftp://a']}}]}]"),
        &[
            "routes[0].rules[0].filters[0].cors.allowOrigins[0]: `example.com` is not an origin: write http or https, ://, \
             a host or *.domain, and the port where it is not the scheme's own; or * alone",
            "routes[0].rules[0].filters[0].cors.allowOrigins[1]: `ftp://a` is not an origin: write http or https, ://, \
             a host or *.domain, and the port where it is not the scheme's own; or * alone",
        ],
    );
}
