//! The same change with the real `skep-edge` as its receiver, whose acknowledgement says that it is durable.

use std::time::{Duration, Instant};

use model::NodeName;

use super::steady;
use crate::Outcome;
use crate::figures::{Figures, quantile};
use crate::hollow::{self, Cloud, Edge};

const CONFIG_MAPS: usize = 10;
const RUNS: usize = 3;
const CHANGES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(20);
const ACKNOWLEDGED: &str = "frames_acknowledged_total";

/// Measures changes one at a time. The acknowledgement is seen in the cloud's metrics, so a ms of it is the looking.
///
/// # Errors
/// A change is not acknowledged.
pub fn run(figures: &mut Figures, cloud: &Cloud) -> Outcome {
    let node = NodeName::new("real").expect("a valid name");
    let edge = Edge::start(&node, &cloud.authority()?, cloud.hub_port())?;
    let measured = hollow::runtime()?.block_on(async {
        let mut api = cloud.api().await?;
        steady::fill(&mut api, &node, CONFIG_MAPS).await?;
        // The pod's first statuses and their consequences are over, then.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut runs: [Vec<f64>; 2] = Default::default();
        for run in 0..RUNS {
            let mut spans = Vec::new();
            for number in 0..CHANGES {
                let before = cloud.metric(ACKNOWLEDGED)?;
                let began = Instant::now();
                steady::change(&mut api, &node, number % CONFIG_MAPS, (run * CHANGES + number + 1) as u64).await?;
                while cloud.metric(ACKNOWLEDGED)? <= before {
                    if began.elapsed() > PATIENCE {
                        return Err(format!("change {number} was not acknowledged within {} s", PATIENCE.as_secs()));
                    }
                }
                spans.push(began.elapsed().as_secs_f64() * 1e3);
            }
            runs[0].push(quantile(&spans, 0.5));
            runs[1].push(quantile(&spans, 0.99));
        }
        Ok(runs)
    });
    let [p50, p99] = measured.map_err(|error| edge.with_log(cloud.with_log(error)))?;
    figures.add("a change to skep-edge: request to the API to durable there: p50", "ms", &p50);
    figures.add("a change to skep-edge: request to the API to durable there: p99", "ms", &p99);
    Ok(())
}
