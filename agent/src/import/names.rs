//! Names of Kubernetes for what Envoy calls as it likes.

use std::collections::BTreeSet;

/// A service, as both are called here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Gives names out, each once.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<Named>);

impl Names {
    /// A name like `wish`, with a number when it is taken.
    pub(super) fn take(&mut self, wish: &str, namespace: &str) -> Named {
        let mut label = label(wish);
        if label.starts_with(|c: char| c.is_ascii_digit()) {
            // A Service's name begins with a letter (RFC 1035).
            label = format!("s-{label}");
            label.truncate(63);
        }
        let mut named = Named {
            namespace: namespace.to_owned(),
            name: label.clone(),
        };
        for number in 2_u32.. {
            if self.0.insert(named.clone()) {
                break;
            }
            let suffix = format!("-{number}");
            let room = 63 - suffix.len();
            named.name = format!("{}{suffix}", label[..label.len().min(room)].trim_end_matches('-'));
        }
        named
    }

    /// A name that says where the thing is: it may be asked for several times.
    pub(super) fn share(&mut self, named: Named) -> Named {
        self.0.insert(named.clone());
        named
    }
}

/// A DNS label (RFC 1123): lower case, `-` for everything else.
pub(super) fn label(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let mut label = String::new();
    for c in text.chars() {
        if !(c == '-' && (label.is_empty() || label.ends_with('-'))) {
            label.push(c);
        }
    }
    label.truncate(63);
    let label = label.trim_end_matches('-');
    if label.is_empty() {
        "service".to_owned()
    } else {
        label.to_owned()
    }
}

/// Last labels of names that are no namespaces, as far as one can tell: `example.com` is no service of a namespace `com`.
const NO_NAMESPACES: [&str; 12] = [
    "arpa",
    "com",
    "edu",
    "example",
    "gov",
    "int",
    "invalid",
    "io",
    "local",
    "localhost",
    "net",
    "org",
];

/// The Kubernetes service that a host name stands for: `user`, `user.shop`, `user.shop.svc`,
/// `user.shop.svc.cluster.local`, with or without a port.
pub(super) fn kubernetes(host: &str, namespace: &str) -> Option<Named> {
    let host = host.split(':').next().unwrap_or(host).trim_end_matches('.');
    let labels: Vec<&str> = host.split('.').collect();
    let (name, namespace) = match labels.as_slice() {
        ["localhost"] => return None,
        [name] => (*name, namespace),
        [_, last] if NO_NAMESPACES.contains(last) => return None,
        [name, namespace] | [name, namespace, "svc"] | [name, namespace, "svc", "cluster", "local"] => {
            (*name, *namespace)
        }
        _ => return None,
    };
    let is_label = |text: &str| !text.is_empty() && label(text) == text;
    (is_label(name) && is_label(namespace)).then(|| Named {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels_and_stay_apart() {
        let mut names = Names::default();
        let mut take = |wish: &str| names.take(wish, "shop").name;
        assert_eq!(take("outbound|80||User_API"), "outbound-80-user-api");
        assert_eq!(take("some cluster"), "some-cluster");
        assert_eq!(take("some-cluster"), "some-cluster-2");
        assert_eq!(take("*"), "service");
        assert_eq!(take("3scale"), "s-3scale");
        assert_eq!(take(&"x".repeat(80)).len(), 63);
        assert_eq!(take(&"x".repeat(80)).len(), 63);
    }

    #[test]
    fn hosts_of_kubernetes_are_known() {
        let known =
            |host| kubernetes(host, "here").map(|named| format!("{}/{}", named.namespace, named.name));
        assert_eq!(known("user").as_deref(), Some("here/user"));
        assert_eq!(known("user.shop:8080").as_deref(), Some("shop/user"));
        assert_eq!(
            known("user.shop.svc.cluster.local.").as_deref(),
            Some("shop/user")
        );
        assert_eq!(known("www.example.com"), None);
        assert_eq!(known("example.com"), None);
        assert_eq!(known("localhost:8080"), None);
        assert_eq!(known("*"), None);
        assert_eq!(known("10.0.0.1"), None);
    }
}
