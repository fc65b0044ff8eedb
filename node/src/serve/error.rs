//! What a client is told when it does not get its text: in the JSON that OpenAI's clients read.
//!
//! `{"error": {"message", "type", "param", "code"}}`, with the status that decides whether a client tries again.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request was not answered with a text.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum ApiError {
    #[error("the body is no JSON object: {0}")]
    Body(String),
    #[error("the body has more than {max} bytes")]
    BodyBytes { max: usize },
    #[error("the body did not come within {seconds} s")]
    BodyTime { seconds: u64 },
    #[error("{name} is missing")]
    Missing { name: &'static str },
    #[error("{name} is {value}; it must be {needed}")]
    Value { name: String, value: String, needed: String },
    #[error("{name} is not supported: {instead}")]
    Unsupported { name: &'static str, instead: &'static str },
    #[error(
        "this model's context has {context} tokens; the prompt has {prompt}: make it shorter by {} or more",
        prompt + 1 - context
    )]
    TooLong { prompt: usize, context: usize },
    #[error("there is no model {asked:?} here; it is called {here:?}")]
    Model { asked: String, here: String },
    #[error("{0}")]
    Conversation(String),
    #[error("nothing is at {method} {path}; there is /v1/completions, /v1/chat/completions, /v1/models, /health")]
    Path { method: String, path: String },
    #[error("{waiting} requests wait already: try again later")]
    Busy { waiting: usize },
    #[error("the newest state cannot be read: {0}")]
    State(String),
    #[error("the model failed: {0}")]
    Device(String),
    #[error("the server is ending")]
    Ending,
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            ApiError::BodyBytes { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::BodyTime { .. } => StatusCode::REQUEST_TIMEOUT,
            ApiError::Model { .. } | ApiError::Path { .. } => StatusCode::NOT_FOUND,
            ApiError::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            ApiError::State(_) | ApiError::Ending => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Device(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn kind(&self) -> &'static str {
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            ApiError::Missing { name } | ApiError::Unsupported { name, .. } => Some(name),
            ApiError::Value { name, .. } => Some(name),
            ApiError::Model { .. } => Some("model"),
            ApiError::Conversation(_) => Some("messages"),
            _ => None,
        }
    }

    fn code(&self) -> Option<&'static str> {
        match self {
            ApiError::TooLong { .. } => Some("context_length_exceeded"),
            ApiError::Model { .. } => Some("model_not_found"),
            ApiError::Unsupported { .. } => Some("unsupported_parameter"),
            ApiError::Busy { .. } => Some("rate_limit_exceeded"),
            _ => None,
        }
    }

    /// The body.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let (message, kind, param, code) = (self.to_string(), self.kind(), self.param(), self.code());
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.to_json())).into_response();
        if let ApiError::Busy { .. } = self {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_form_and_status_that_clients_decide_by() {
        let busy = ApiError::Busy { waiting: 32 };
        assert_eq!(busy.to_json()["error"]["code"], "rate_limit_exceeded");
        let response = busy.into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[RETRY_AFTER]),
            (429, &HeaderValue::from_static("1"))
        );
        let long = ApiError::TooLong { prompt: 12, context: 12 };
        assert_eq!(
            long.to_json(),
            json!({ "error": { "message": "this model's context has 12 tokens; the prompt has 12: make it shorter by 1 or more",
                "type": "invalid_request_error", "param": null, "code": "context_length_exceeded" } })
        );
        assert_eq!((ApiError::Ending.status().as_u16(), ApiError::Ending.kind()), (503, "server_error"));
    }
}
