// Android Gradle plugin 9 compiles Kotlin by itself. ExifInterface reads streams from API 24 on.
plugins { id("com.android.application") version "9.4.0" }

android {
    namespace = "edgeres.sample"
    compileSdk = 36
    defaultConfig {
        applicationId = "edgeres.sample"
        minSdk = 24
        targetSdk = 36
        versionCode = 1
        versionName = "1"
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
    }
    androidResources { noCompress += "tflite" }
}

dependencies {
    implementation("com.google.ai.edge.litert:litert:2.3.0")
    androidTestImplementation("androidx.test.ext:junit:1.2.1")
    androidTestImplementation("androidx.test:runner:1.6.2")
}
