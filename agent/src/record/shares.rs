//! What each pod holds of the engine, what it was refused, and what it has cost.

use std::fmt;

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

use super::{
    names,
    series::{Labels, count, describe, gauge},
};
use crate::share::{Sample, Share};

pub(super) fn encode(samples: &[Sample], encoder: &mut DescriptorEncoder) -> fmt::Result {
    let mut metric = describe(encoder, names::POD_CPU, MetricType::Counter)?;
    for sample in samples {
        metric
            .encode_family(&labels(sample))?
            .encode_counter::<prometheus_client::encoding::NoLabelSet, _, u64>(
                &sample.cpu.as_secs_f64(),
                None,
            )?;
    }
    let mut metric = describe(encoder, names::POD_MEMORY, MetricType::Gauge)?;
    for sample in samples {
        gauge(&mut metric, &labels(sample), sample.held(Share::Memory))?;
    }
    let mut metric = describe(encoder, names::POD_ASIDE, MetricType::Gauge)?;
    for sample in samples {
        gauge(&mut metric, &labels(sample), sample.aside.into())?;
    }
    let mut metric = describe(encoder, names::POD_SHARE, MetricType::Gauge)?;
    for sample in samples {
        for share in Share::ALL.into_iter().filter(|share| *share != Share::Memory) {
            let mut labels = labels(sample);
            labels.push(("share", share.as_str()));
            gauge(&mut metric, &labels, sample.held(share))?;
        }
    }
    let mut metric = describe(encoder, names::POD_SHARE_EXCEEDED, MetricType::Counter)?;
    for sample in samples {
        for share in Share::ALL {
            let mut labels = labels(sample);
            labels.push(("share", share.as_str()));
            count(&mut metric, &labels, sample.exceeded[share as usize])?;
        }
    }
    Ok(())
}

fn labels(sample: &Sample) -> Labels<'_> {
    vec![("namespace", &sample.pod.namespace), ("pod", &sample.pod.name)]
}
