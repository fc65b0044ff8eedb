//! What is said of calls on their way, and how loudly: the guides for miners and validators explain each line.

use covey_round::submit::News;

/// Says it.
pub(super) fn tell(node: &str, news: &News) {
    match news {
        News::TryingAgain(error) => tracing::warn!(%node, %error, "submitting again"),
        News::TryingLater(error) => tracing::info!(%node, %error, "submitting then"),
        News::NotSubmitted(error) if error.needs_a_person() => tracing::error!(%node, %error, "not submitted"),
        // Refused: sent before a crash and included since, most often.
        News::NotSubmitted(error) => tracing::info!(%node, %error, "not submitted"),
        News::SigningAnew => tracing::warn!(%node, "a call cannot come any more: signing another"),
        News::FailedOnChain(why) => tracing::warn!(%node, %why, "a call failed on chain"),
        News::NotTakenAgain(error) => {
            tracing::debug!(%node, %error, "still on its way, or in a block that is not final");
        }
        News::FateUnknown(why) => tracing::debug!(%node, %why, "not known what became of a call"),
    }
}
