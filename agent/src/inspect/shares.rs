//! What the windows show of the pods' shares.

use std::{cmp::Reverse, collections::HashMap};

use crate::{
    admin::proto,
    share::{Sample, Share},
};

/// Pods that `derny status` names.
const HEAVIEST: usize = 3;

/// The pods that have cost most CPU, the most costly first.
pub(super) fn heaviest(accounts: &[Sample]) -> Vec<proto::PodCost> {
    let mut accounts: Vec<&Sample> = accounts.iter().filter(|account| !account.cpu.is_zero()).collect();
    accounts.sort_by_key(|account| Reverse(account.cpu));
    let cost = |account: &Sample| proto::PodCost {
        pod: account.pod.to_string(),
        cpu_ms: millis(account),
        memory_bytes: account.held(Share::Memory),
    };
    accounts.into_iter().take(HEAVIEST).map(cost).collect()
}

/// Pods whose connections the kernel leaves alone.
pub(super) fn aside(accounts: &[Sample]) -> Vec<String> {
    let aside = accounts.iter().filter(|account| account.aside);
    aside.map(|account| account.pod.to_string()).collect()
}

pub(super) fn add_costs(pods: &mut [proto::Pod], accounts: &[Sample]) {
    let by_name = |account: &Sample| {
        (
            (account.pod.namespace.clone(), account.pod.name.clone()),
            account.clone(),
        )
    };
    let by_name: HashMap<_, Sample> = accounts.iter().map(by_name).collect();
    for pod in pods {
        let name = (pod.namespace.as_str().into(), pod.name.as_str().into());
        if let Some(account) = by_name.get(&name) {
            pod.cpu_ms = millis(account);
            pod.memory_bytes = account.held(Share::Memory);
            pod.aside = account.aside;
        }
    }
}

fn millis(account: &Sample) -> u64 {
    u64::try_from(account.cpu.as_millis()).unwrap_or(u64::MAX)
}
