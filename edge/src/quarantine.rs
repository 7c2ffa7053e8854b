//! The quarantine's two ways out of this daemon: back in at the border where a message came from, and the answer to its
//! sender. A refusal is an answer: nobody is left waiting for a message that was set aside.
//!
//! | border | enters again | the sender hears |
//! |---|---|---|
//! | `mqtt` | as if the broker delivered it | code 500 on the topic of the result |
//! | `cloud` | as if the socket received it | a refusal of the frame: it is not sent again until the thing changes |

use std::sync::Arc;

use actor::{Ingress, Quarantine};
use model::{Clock as _, SystemClock};

use crate::edge_hub::{EdgeHubMessage, entry};
use crate::event_bus::ingress::BORDER as MQTT;
use crate::ids;
use crate::wiring::{Beside, Mailboxes};

/// Says to the quarantine how a message enters again, and who hears that one was set aside.
pub(crate) fn attach(quarantine: &Quarantine, mail: &Mailboxes, beside: &Arc<Beside>) {
    let (hub, sockets) = (mail.edge_hub.clone(), beside.clone());
    quarantine.on_retry(move |ingress: &Ingress| match ingress.border.as_ref() {
        MQTT => match sockets.mqtt().as_ref().map(|mqtt| mqtt.border()) {
            Some(border) => border.again(ingress),
            None => Err("the module eventbus does not run; enable it in `modules.enabled`".to_owned()),
        },
        entry::BORDER if sockets.link().is_none() => Err("the module websocket does not run; enable it in `modules.enabled`".to_owned()),
        entry::BORDER => entry::again(&hub, ingress),
        other => Err(format!("this version knows no border `{other}`; drop the message")),
    });
    let (hub, sockets) = (mail.edge_hub.clone(), beside.clone());
    quarantine.on_buried(move |buried| {
        let Some(ingress) = &buried.ingress else { return };
        if ingress.border == MQTT {
            let border = sockets.mqtt().as_ref().map(|mqtt| mqtt.border());
            if let Some(border) = border {
                border.set_aside(buried, ingress);
            }
        } else if ingress.border == entry::BORDER
            && let Some(frame) = entry::refusal(buried, ingress, SystemClock.now())
            && hub.try_post(ids::meta_of(&frame, "quarantine"), EdgeHubMessage::Send(frame)).is_err()
        {
            log::warn!(id = buried.id.as_str(); "no room to tell the cloud that its message was set aside: it will send it again");
        }
    });
}
